"""HEAD for every path, and the `Allow` header."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed(request: Request) -> str:
    """The methods of the request's path, as `Allow` lists them."""
    found = [method for method in METHODS if _supports(request, method)]
    head = ["HEAD"] if "GET" in found else []
    return ", ".join([*found, *head, "OPTIONS"])


def _supports(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in _routes(request))


def _routes(request: Request) -> list[BaseRoute]:
    """Those of exactly this path, where there are some: `/v1/jobs/events` is no job's id."""
    routes = list(flat(request.app.routes))
    exact = [it for it in routes if getattr(it, "path", "") == request.scope["path"]]
    return exact or routes


def flat(routes: Iterable[Any]) -> Iterator[BaseRoute]:
    """FastAPI keeps included routers as they are."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from flat(route.original_router.routes)
        else:
            yield route


class _HeadSent(Exception):
    """The head of the answer was sent."""


class HeadRequests:
    """ASGI middleware: HEAD is GET without the body, also for an endless one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def head_only(message: Message) -> None:
            if message["type"] != "http.response.body":
                return await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _HeadSent

        try:
            await self._app({**scope, "method": "GET"}, receive, head_only)
        except _HeadSent:
            pass
