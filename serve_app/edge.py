"""What stands before Serve in an Ingress replica; Serve imports `middlewares` by its name.

Serve reads every WebSocket itself into a queue without bound, to notice a client that leaves: two
task switches a message, and no back-pressure. Our handlers notice that themselves, and the header
below says so. The other header would let any client lift Serve's time limits.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

WATCHES_ITSELF = (b"x-request-disconnect-disabled", b"?1")
NOT_FOR_CLIENTS = frozenset({b"x-request-timeout-seconds", WATCHES_ITSELF[0]})


class Edge:
    """Rewrites the request's headers; otherwise not there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            headers = [pair for pair in scope["headers"] if pair[0] not in NOT_FOR_CLIENTS]
            if scope["type"] == "websocket":
                headers.append(WATCHES_ITSELF)
            scope["headers"] = headers
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    return [Middleware(Edge)]
