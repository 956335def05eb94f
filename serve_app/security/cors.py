"""CORS: pages of the configured origins read the answers of REST, refusals too."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.identity.origins import KnownOrigins

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_S = 600


class Cors:
    """ASGI middleware. A preflight has no key, and is answered without one; a request that follows
    it must show one, or its origin is known. Cookies are not for other origins."""

    def __init__(self, app: ASGIApp, known: KnownOrigins) -> None:
        self._app = app
        self._known = known
        self._cors = CORSMiddleware(
            app,
            allow_origins=known.origins,
            allow_methods=METHODS,
            allow_headers=["*"],  # those that are asked for: clients add their own
            expose_headers=["*"],
            allow_private_network=True,
            max_age=PREFLIGHT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = scope["type"] == "http" and self._known.allows(_origin(scope))
        await (self._cors if is_known else self._app)(scope, receive, send)


def _origin(scope: Scope) -> str:
    return Headers(scope=scope).get("origin", "")
