"""All routes of an application, from the router itself, so that none can be forgotten."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from serve_app.api import create_app
from serve_app.config import Config
from tests.fakes import models


class Found(NamedTuple):
    method: str
    path: str
    """With its parameters as `{id}`."""
    route: Any


def routes_of(app: Any) -> Iterator[Found]:
    """Mounts have the method GET."""
    for route in flat(app.routes):
        if isinstance(route, Mount):
            yield Found("GET", route.path, route)
        else:
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                yield Found(method, route.path, route)


def flat(routes: Any) -> Iterator[Any]:
    """FastAPI keeps included routers as they are."""
    for route in routes:
        if isinstance(route, APIRoute | Route | Mount):
            yield route
        elif hasattr(route, "routes"):
            yield from flat(route.routes)
        else:
            assert not route.include_context.prefix, "paths below would be wrong"
            yield from flat(route.original_router.routes)


def application() -> Any:
    return create_app(models(), Config(profile="sim"))
