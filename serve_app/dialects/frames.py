"""What the dialects with JSON messages have in common. Pure."""

import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from serve_app.errors import ClientError
from serve_app.security.json_bounds import check_values

AUDIO_TOKEN_MS = 100

Frame = dict[str, Any]
"""A JSON message."""


@dataclass(frozen=True, slots=True)
class ImmediateAnswer:
    """A message for the client that needs no decision of the session."""

    frame: bytes


def json_object(message: str | bytes) -> Frame:
    """Raises `ClientError` for anything but a JSON object of bounded size."""
    check_values(message)
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
    """The end of `text` that was not sent yet; "" if `text` does not begin with what was sent."""
    return text[len(sent) :] if text.startswith(sent) else ""


def token_usage(audio_ms: int, text: str) -> Frame:
    """A transcript's usage in OpenAI's shape: one token per 100 ms of audio and one per word."""
    input_tokens, output_tokens = audio_ms // AUDIO_TOKEN_MS, len(text.split())
    return {
        "type": "tokens",
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
