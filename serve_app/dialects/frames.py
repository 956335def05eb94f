"""What every dialect of JSON messages does first. Pure."""

from typing import Any

import orjson

from serve_app.errors import ClientError


def json_object(message: str | bytes) -> dict[str, Any]:
    """Raises `ClientError` for anything but a JSON object."""
    try:
        parsed = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise ClientError("invalid_json", "the message is not JSON") from error
    if not isinstance(parsed, dict):
        raise ClientError("invalid_json", "the message is not a JSON object")
    return parsed
