"""`POST /config/update`: changes settings on all ingress replicas while the server runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from serve_app.api.backend import Backend
from serve_app.config.runtime import RuntimeSettings
from serve_app.observability.audit import audit


def router(backend: Backend, settings: RuntimeSettings) -> APIRouter:
    routes = APIRouter(tags=["status"])

    @routes.post("/config/update")
    async def update(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Sections with keys to change, such as `{"limits": {"max_sessions": 500}}`.
        `max_sessions`, `retry_after_s` and `client_write_timeout_s` apply at once, the others to
        new sessions. The answer lists all changes since the start."""
        all_changes = settings.checked(changes)
        if backend.cluster:
            all_changes = await backend.cluster.change_settings(changes)
        else:
            settings.apply(all_changes)
        audit("settings_changed", settings=changes)
        return {section: values for section, values in all_changes.items() if values}

    return routes
