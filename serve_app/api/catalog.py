"""`GET /v1/models`: the configured engines, in OpenAI's list of models."""

import time
from typing import Any

from fastapi import APIRouter

from serve_app.api.backend import Backend
from serve_app.errors import ClientError


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(tags=["models"])
    listed = _listed(backend.engines.names(), int(time.time()))

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """One engine of each kind. Requests may name any model; these are the ones that answer."""
        return {"object": "list", "data": listed}

    @routes.get("/v1/models/status")
    @routes.get("/models/status", include_in_schema=False)
    async def status() -> dict[str, Any]:
        """Every model replica: `absent` (no weights), `loading` with a percentage, `warm` after
        its first request, or `failed`, with the reason."""
        known = await backend.cluster.model_states() if backend.cluster else []
        kinds = {state["kind"] for state in known}
        missing = [
            {"kind": kind, "engine": name, "model": None, "state": "starting", "percent": 0}
            for kind, name in backend.engines.names().items()
            if kind not in kinds and backend.cluster
        ]
        warm = {state["kind"] for state in known if state["state"] == "warm"}
        return {
            "status": "warm"
            if warm == set(backend.engines.names()) or not backend.cluster
            else "starting",
            "models": [*known, *missing],
        }

    @routes.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """A listed model, by its id or by its engine's name."""
        for one in listed:
            if model in (one["id"], one["engine"]):
                return one
        reason = f"there is no model {model[:80]!r}; GET /v1/models lists the models"
        raise ClientError("model_not_found", reason, param="model")

    return routes


def _listed(engines: dict[str, str], created: int) -> list[dict[str, Any]]:
    """A model's id is its engine's name, or `kind/name` if several engines have that name."""
    names = list(engines.values())
    return [
        {
            "id": name if names.count(name) == 1 else f"{kind}/{name}",
            "object": "model",
            "created": created,
            "owned_by": "voxray",
            "kind": kind,
            "engine": name,
        }
        for kind, name in engines.items()
    ]
