"""Bounds on JSON that a stranger sends, before it is parsed: parsing holds up everybody else. Pure.

What is counted here costs a fraction of parsing, and is the same for a body in any state.
"""

import re

from serve_app.errors import ClientError

LARGEST = (1 << 63) - 1
INTEGER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}(?![\d.eE])")

MAX_VALUES = 100_000
"""Values of one JSON document; far above what any request here needs."""

CHEAP_BYTES = 128 << 10
"""Below this, parsing takes a few milliseconds however many values there are."""


def check_json(body: bytes) -> None:
    """Raises `ClientError` for too many values, for an integer beyond 64 bits, and for text that
    is not UTF-8 (nothing in it could be counted); a body that is no JSON passes otherwise."""
    if b"\0" in body[:4]:
        raise ClientError("invalid_json", "the body is not JSON in UTF-8")
    check_values(body)
    for integer in INTEGER.findall(_outside_strings(body)):
        _check_integer(integer.decode())


def check_values(message: str | bytes) -> None:
    """Raises `ClientError` for a large message with too many values. Base64 and numbers have none
    of the characters that are counted; text may have some."""
    if len(message) <= CHEAP_BYTES:
        return
    raw = message.encode(errors="replace") if isinstance(message, str) else message
    if raw.count(b",") > MAX_VALUES or raw.count(b":") > MAX_VALUES:
        raise ClientError("message_too_large", f"JSON has at most {MAX_VALUES} values")


def _outside_strings(body: bytes) -> bytes:
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b'"'.join(plain.split(b'"')[::2])


def _check_integer(digits: str) -> None:
    if len(digits) > 20 or not -LARGEST - 1 <= int(digits) <= LARGEST:
        reason = f"{digits[:24]} is out of range: integers are from -2^63 to 2^63 - 1"
        raise ClientError("invalid_request", reason)
