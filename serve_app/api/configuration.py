"""`POST /config/update`: what can change while the server runs, on all ingress replicas."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from serve_app.api.backend import Backend
from serve_app.config.runtime import RuntimeSettings


def router(backend: Backend, settings: RuntimeSettings) -> APIRouter:
    routes = APIRouter(tags=["status"])

    @routes.post("/config/update")
    async def update(asked: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Sections with keys to change, as `{"limits": {"max_sessions": 500}}`. `max_sessions`,
        `retry_after_s` and `client_write_timeout_s` hold at once, the others for new sessions.
        Everything that was changed since the start comes back."""
        changes = settings.checked(asked)
        if backend.cluster:
            changes = await backend.cluster.change_settings(asked)
        else:
            settings.apply(changes)
        return {section: values for section, values in changes.items() if values}

    return routes
