"""Counts, times and logs every HTTP request: the outermost ASGI middleware."""

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.identity.principal import Principal
from serve_app.observability import tracing
from serve_app.observability.ids import belonging
from serve_app.observability.metrics import Metrics
from serve_app.observability.trace import Trace, parsed

log = logging.getLogger("voxray.api")

UNROUTED = "none"
"""The route of a request without one. The path cannot be the label, because clients choose it and
the number of labels must be small."""

ABORTED = "aborted"


class WatchRequests:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), ABORTED

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        came = parsed(Headers(scope=scope).get("traceparent"))
        trace = tracing.begin(came)
        with belonging(**_ids(scope, trace)), tracing.current_trace(trace):
            try:
                await self._app(scope, receive, answer)
            except Exception:
                if status == ABORTED:
                    status = "500"  # an outer middleware answers it
                raise
            finally:
                self._ended(scope, status, began)
                _record(scope, status, began, trace, came)

    def _ended(self, scope: Scope, status: str, began: float) -> None:
        seconds = time.monotonic() - began
        method, route = scope["method"], route_of(scope)
        self._metrics.count_request(method, route, status)
        if status != ABORTED:
            self._metrics.time_request(route, seconds)
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "tenant": tenant_of(scope),
        }
        log.info("request_ended", extra=fields)


def _ids(scope: Scope, trace: Trace | None) -> dict[str, str]:
    request = Headers(scope=scope).get("x-request-id", "")[:128]
    return {"request": request, "trace": trace.trace_id if trace else ""}


def _record(
    scope: Scope, status: str, began: float, trace: Trace | None, parent: Trace | None
) -> None:
    if not trace:
        return
    method, route = scope["method"], route_of(scope)
    fields: dict[str, tracing.Value] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": int(status) if status.isdecimal() else 0,
    }
    error = status if status >= "500" else ""
    name, now = f"{method} {route}", time.monotonic()
    tracing.record(tracing.Span(name, trace, parent, began, now, fields, error, serves=True))


def tenant_of(scope: Scope) -> str:
    """Whose request it is; "" if the gate has let in nobody."""
    caller: Principal | None = scope.get("caller")
    return caller.tenant if caller else ""


def route_of(scope: Scope) -> str:
    """The path of the route, with its parameters as such."""
    return str(getattr(scope.get("route"), "path", None) or scope.get("root_path") or UNROUTED)
