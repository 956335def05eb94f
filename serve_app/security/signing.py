"""What the server signs for clients to bring back: JSON Web Tokens (HS256). Pure.

The first key signs, all of them verify, so that keys can be rotated. A token names its key (`kid`),
its purpose (`aud`) and its end (`exp`); one that serves another purpose is refused.
"""

from collections.abc import Sequence
from typing import Any

import jwt

from serve_app.security.keys import key_id

ALGORITHM = "HS256"
ISSUER = "voxray"


class InvalidToken(Exception):
    """It is forged, damaged, for another purpose, or too old."""


class SigningKeys:
    """At least one key, the newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._newest = keys[0]
        self._keys = {key_id(key): key for key in keys}
        self._headers = {"kid": key_id(self._newest)}

    def sign(self, purpose: str, expires_at: int, claims: dict[str, Any]) -> str:
        """`expires_at` is in seconds since 1970."""
        body = {"iss": ISSUER, "aud": purpose, "exp": expires_at, **claims}
        return jwt.encode(body, self._newest, ALGORITHM, self._headers)

    def verified(self, purpose: str, token: str, now: float) -> dict[str, Any]:
        """A token's claims. Raises `InvalidToken`."""
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                [ALGORITHM],
                {"require": ["iss", "aud", "exp"], "verify_exp": False},  # the caller has the clock
                audience=purpose,
                issuer=ISSUER,
            )
            valid = bool(claims["exp"] > now)
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken from error
        if not valid:
            raise InvalidToken
        return claims
