"""Requests without an upgrade to the paths of WebSockets: why a handshake is refused, else 426.

A script in a browser never learns why a handshake was refused; here it can ask.
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from serve_app.admission.admission import Admission
from serve_app.admission.places import Place
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal

Admit = Callable[[Principal], Place]
"""Reserves a place for a caller; raises `ClientError` where there is none."""


def router(paths: Mapping[str, Admit], admission: Admission) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    for path, admit in paths.items():
        routes.get(path)(_answering(admit, admission))
    return routes


def _answering(admit: Admit, admission: Admission) -> Callable[..., Awaitable[Response]]:
    async def upgrade_required(request: Request, caller: Caller) -> Response:
        admission.leave(admit(caller))
        reason = f"{request.url.path} accepts only WebSocket connections"
        raise ClientError("upgrade_required", reason)

    return upgrade_required
