"""Client secrets: temporary keys for realtime sessions with given settings. Pure.

They come from `POST /v1/realtime/client_secrets` and contain the settings, signed, so that every
ingress replica can check them without storing them: `ek_`, then a JSON Web Token (HS256) whose
claim `session` is base64url of zlib of JSON, because a secret travels in a header.
"""

import base64
import json
import zlib
from typing import Any

from serve_app.errors import ClientError
from serve_app.security.signing import InvalidToken, SigningKeys

PREFIX = "ek_"
PURPOSE = "voxray/realtime"

MAX_CHARS = 6_000
"""Servers limit the size of a header."""

MAX_SESSION_BYTES = 1 << 20


def mint(keys: SigningKeys, session: dict[str, Any], expires_at: int, nonce: str) -> str:
    """A new secret. `expires_at` is in seconds since the epoch. Raises `ClientError` if the session
    is too large."""
    claims = {"jti": nonce, "session": _packed(session)}
    secret = PREFIX + keys.sign(PURPOSE, expires_at, claims)
    if len(secret) > MAX_CHARS:
        raise ClientError(
            "text_too_long", "the session is too large for a client secret: send it as an update"
        )
    return secret


def opened(keys: SigningKeys, secret: str, now: float) -> dict[str, Any]:
    """The session settings in a secret. `now` is in seconds since the epoch.

    Raises `ClientError` if it is forged or has expired.
    """
    if len(secret) > MAX_CHARS:
        raise _invalid()
    try:
        return _unpacked(keys.verified(PURPOSE, secret.removeprefix(PREFIX), now)["session"])
    except (InvalidToken, KeyError, ValueError, TypeError, zlib.error) as error:
        raise _invalid() from error


def _invalid() -> ClientError:
    return ClientError("invalid_api_key", "the key is invalid or has expired")


def _packed(session: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(session).encode(), 9)).decode()


def _unpacked(text: str) -> dict[str, Any]:
    raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(text), MAX_SESSION_BYTES)
    session: dict[str, Any] = json.loads(raw)
    return session
