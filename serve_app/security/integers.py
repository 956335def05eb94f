"""Refuses integers beyond 64 bits in JSON bodies. Pure."""

import json
import re

from serve_app.errors import ClientError

LARGEST = (1 << 63) - 1
LONG = re.compile(rb"\d{19}")


def check_integers(body: bytes) -> None:
    """Raises `ClientError` for an integer beyond 64 bits; a body that is not JSON passes."""
    if not LONG.search(body):
        return
    try:
        json.loads(body, parse_int=_checked)
    except (ValueError, RecursionError):
        return  # the route reports what is wrong


def _checked(digits: str) -> int:
    if len(digits) > 20 or not -LARGEST - 1 <= int(digits) <= LARGEST:
        reason = f"{digits[:24]} is out of range: integers are from -2^63 to 2^63 - 1"
        raise ClientError("invalid_request", reason)
    return 0
