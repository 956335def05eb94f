"""Client secrets: keys that open one realtime session's shape, for a while. Pure.

Made by `POST /v1/realtime/client_secrets`. They carry what they stand for, signed, so that every
ingress replica knows them and none has to remember them: `ek_`, then base64url of the payload
(zlib of JSON), a dot, and base64url of its HMAC-SHA256.
"""

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any

from serve_app.errors import ClientError

PREFIX = "ek_"
MAX_CHARS = 6_000
"""A secret travels in a header."""

MAX_PAYLOAD_BYTES = 1 << 20

INVALID = ClientError("invalid_api_key", "the key is not valid here, or no longer")


def mint(key: bytes, session: dict[str, Any], expires_at: int, nonce: str) -> str:
    """Raises `ClientError` for a session that is too large for it."""
    payload = json.dumps({"session": session, "expires_at": expires_at, "nonce": nonce})
    body = _encode(zlib.compress(payload.encode(), 9))
    secret = f"{PREFIX}{body}.{_encode(_sign(key, body))}"
    if len(secret) > MAX_CHARS:
        raise ClientError(
            "text_too_long", "the session is too large for a client secret: send it as an update"
        )
    return secret


def opened(key: bytes, secret: str, now: float) -> dict[str, Any]:
    """The session that a secret stands for. Raises `ClientError` if it is forged or has expired."""
    body, dot, signature = secret.removeprefix(PREFIX).partition(".")
    try:
        genuine = dot and hmac.compare_digest(_decode(signature), _sign(key, body))
        if not genuine:
            raise INVALID
        payload = json.loads(zlib.decompressobj().decompress(_decode(body), MAX_PAYLOAD_BYTES))
    except (ValueError, zlib.error) as error:
        raise INVALID from error
    if payload["expires_at"] <= now:
        raise INVALID
    session: dict[str, Any] = payload["session"]
    return session


def _sign(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii", "strict") + b"=" * (-len(text) % 4))
