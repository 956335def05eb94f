"""A position in a distributed trace, and its text form, W3C's `traceparent`."""

import re
import secrets
from typing import NamedTuple

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Trace(NamedTuple):
    """A span of a trace, as its children and other processes know it."""

    trace_id: str
    """32 hexadecimal digits, the same for all spans of the trace."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = True
    """Its spans are recorded."""

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.sampled)}"

    def child(self) -> "Trace":
        return self._replace(span_id=secrets.token_hex(8))


def new_trace(trace_id: str = "") -> Trace:
    """A trace's first span."""
    return Trace(trace_id or secrets.token_hex(16), secrets.token_hex(8))


def parsed(traceparent: str | None) -> Trace | None:
    """None for none, and for one that is not valid: it is ignored, as the standard asks."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    if not found or not int(found[1], 16) or not int(found[2], 16):
        return None
    return Trace(found[1], found[2], bool(int(found[3], 16) & 1))
