"""`GET /v1/metrics/history`: the last hour of all ingress replicas."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from serve_app.api.backend import Backend
from serve_app.observability.history import INTERVAL_S, KEPT, merged

LONGEST_S = INTERVAL_S * KEPT
Seconds = Annotated[int, Query(ge=INTERVAL_S, le=LONGEST_S, description="How far back.")]


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(tags=["status"])

    @routes.get("/v1/metrics/history")
    async def metrics_history(seconds: Seconds = LONGEST_S) -> dict[str, Any]:
        """A sample each ten seconds, the oldest first. Counts are since the sample before, times
        in ms, `at` in seconds since 1970; what nobody knows is null."""
        cluster = backend.cluster
        histories = await cluster.histories() if cluster else [list(backend.samples)]
        return {
            "object": "metrics_history",
            "interval_s": INTERVAL_S,
            "replicas": len(histories),
            "samples": merged(histories, time.time() - seconds),
        }

    return routes
