"""Counts HTTP requests: ASGI middleware behind the gate and the limits.

Who needs no key is not counted, nor are those whom the gate or a limit turns away. Sessions are
counted where they open: the requests that Socket.IO makes for one connection are not.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.usage.meter import Counted, Meter


class CountRequests:
    def __init__(self, app: ASGIApp, meter: Meter, free: str) -> None:
        """`free`: the path below which nothing is counted."""
        self._app = app
        self._meter = meter
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("caller")
        if scope["type"] == "http" and caller and not scope["path"].startswith(self._free):
            self._meter.add(caller, Counted.REQUESTS, 1)
        await self._app(scope, receive, send)
