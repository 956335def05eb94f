"""The header `Range` (RFC 9110, section 14): one range of bytes. Pure."""

import re
from typing import NamedTuple

from serve_app.errors import ClientError

ONE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class Range(NamedTuple):
    """Bytes `start` to `end`, which is not in it."""

    start: int
    end: int
    partial: bool


def range_of(header: str | None, size: int) -> Range:
    """The requested range; everything if the header is missing or is not a single range.

    Raises `ClientError` for a range outside of the recording.
    """
    found = ONE.fullmatch((header or "").replace(" ", ""))
    if not found or found.groups() == ("", ""):
        return Range(0, size, False)
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if start >= end:
        raise ClientError(
            "range_not_satisfiable",
            f"the range is outside of the recording, which has {size} bytes",
        )
    return Range(start, end, True)
