"""`GET /v1/models`: the engines that answer here, as OpenAI's clients list models."""

import time
from typing import Any

from fastapi import APIRouter

from serve_app.errors import ClientError


def router(models: Any) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    created = int(time.time())
    listed = {
        name: {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "voxray",
            "kind": kind,
        }
        for kind, name in models.engines().items()
    }

    @routes.get("")
    async def list_models() -> dict[str, Any]:
        """One engine of each kind. Requests may name any model: these are the ones that answer."""
        return {"object": "list", "data": list(listed.values())}

    @routes.get("/{model}")
    async def model(model: str) -> dict[str, Any]:
        if model not in listed:
            raise ClientError("model_not_found", f"there is no model {model[:80]!r} here")
        return listed[model]

    return routes
