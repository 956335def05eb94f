"""Requests without an upgrade to the paths of WebSockets: 426."""

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response

from serve_app.errors import ClientError


def router(paths: Iterable[str]) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    for path in paths:
        routes.get(path)(upgrade_required)
    return routes


async def upgrade_required(request: Request) -> Response:
    reason = f"{request.url.path} accepts only WebSocket connections"
    raise ClientError("upgrade_required", reason)
