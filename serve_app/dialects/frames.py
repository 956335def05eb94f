"""What every dialect of JSON messages does alike. Pure."""

import binascii
from typing import Any

import orjson

from serve_app.errors import ClientError

AUDIO_TOKEN_MS = 100


def json_object(message: str | bytes) -> dict[str, Any]:
    """Raises `ClientError` for anything but a JSON object."""
    try:
        parsed = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise ClientError("invalid_json", "the message is not JSON") from error
    if not isinstance(parsed, dict):
        raise ClientError("invalid_json", "the message is not a JSON object")
    return parsed


def base64_bytes(text: str, field: str) -> bytes:
    """Raises `ClientError` for anything but base64."""
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except ValueError as error:
        raise ClientError("invalid_base64", f"{field} is not base64 (RFC 4648)") from error


def growth(sent: str, text: str) -> str:
    """What `text` adds to what was sent of it; "" where it does not begin with that."""
    return text[len(sent) :] if text.startswith(sent) else ""


def token_usage(audio_ms: int, text: str) -> dict[str, Any]:
    """Of a transcript, as OpenAI shapes it: a token each 100 ms of audio, and one a word."""
    heard, written = audio_ms // AUDIO_TOKEN_MS, len(text.split())
    return {
        "type": "tokens",
        "input_tokens": heard,
        "output_tokens": written,
        "total_tokens": heard + written,
    }
