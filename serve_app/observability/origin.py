"""What a live session belongs to, for its log lines and spans. Many sessions share one task, so
each carries its own."""

from collections.abc import Mapping
from typing import NamedTuple

from serve_app.identity.principal import Principal
from serve_app.observability.trace import Trace, parsed

NOBODY = Principal("")


class Origin(NamedTuple):
    session: str = ""
    kind: str = ""
    """The way the session came: a dialect's name."""
    caller: Principal = NOBODY
    trace: Trace | None = None
    """The client's, from its handshake."""

    def ids(self) -> dict[str, str]:
        """The fields of a log line."""
        trace = self.trace.trace_id if self.trace else ""
        return {"session": self.session, "tenant": self.caller.tenant, "trace": trace}


def origin_of(caller: Principal, headers: Mapping[str, str], kind: str, session: str) -> Origin:
    """`headers`: those of the handshake or request."""
    trace = parsed(headers.get("traceparent"))
    return Origin(session, kind, caller, trace)
