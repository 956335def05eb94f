"""Client secrets: temporary keys for sockets, with the settings of a session. Pure.

They come from `POST /v1/realtime/client_secrets` and contain who made them, the one scope that they
have, and the settings, signed, so that every ingress replica can check them without storing them:
`ek_`, then a JSON Web Token (HS256) whose claim `session` is base64url of zlib of JSON, because a
secret travels in a header. A secret is not valid longer than the key or token that made it.
"""

import base64
import json
import zlib
from typing import Any, NamedTuple

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal, Scope
from serve_app.security.signing import InvalidToken, SigningKeys

PREFIX = "ek_"
PURPOSE = "voxray/realtime"

MAX_CHARS = 6_000
"""Servers limit the size of a header."""

MAX_SESSION_BYTES = 1 << 20


class ClientSecret(NamedTuple):
    """What a secret says."""

    session: dict[str, Any]
    """The settings of its sessions."""
    owner: Principal
    """Who made it, with the scope that it has."""


def mint(
    keys: SigningKeys,
    session: dict[str, Any],
    expires_at: int,
    nonce: str,
    owner: Principal,
    scope: Scope,
) -> str:
    """A new secret. `expires_at` is in seconds since the epoch. Raises `ClientError` if the session
    is too large."""
    bound = {"tenant": owner.tenant, "key": owner.key, "scope": scope, "until": owner.expires}
    claims = {"jti": nonce, "session": _packed(session), **bound}
    secret = PREFIX + keys.sign(PURPOSE, expires_at, claims)
    if len(secret) > MAX_CHARS:
        raise ClientError(
            "text_too_long", "the session is too large for a client secret: send it as an update"
        )
    return secret


def opened(keys: SigningKeys, secret: str, now: float) -> ClientSecret:
    """What a secret says. `now` is in seconds since the epoch.

    Raises `ClientError` if it is forged or has expired.
    """
    if len(secret) > MAX_CHARS:
        raise _invalid()
    try:
        claims = keys.verified(PURPOSE, secret.removeprefix(PREFIX), now)
        scopes = frozenset({Scope(claims["scope"])})
        owner = Principal(claims["tenant"], claims["key"], scopes, claims.get("until"))
        return ClientSecret(_unpacked(claims["session"]), owner)
    except (InvalidToken, KeyError, ValueError, TypeError, zlib.error) as error:
        raise _invalid() from error


def _invalid() -> ClientError:
    return ClientError("invalid_api_key", "the client secret is invalid or has expired")


def _packed(session: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(session).encode(), 9)).decode()


def _unpacked(text: str) -> dict[str, Any]:
    raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(text), MAX_SESSION_BYTES)
    session: dict[str, Any] = json.loads(raw)
    return session
