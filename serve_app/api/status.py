"""Health, readiness and metrics."""

import time
from typing import Any

from fastapi import APIRouter

from serve_app.errors import ClientError
from serve_app.live import LiveSessions
from serve_app.metrics import Metrics, merge, report


def router(models: Any, sessions: LiveSessions, metrics: Metrics) -> APIRouter:
    """Routes that say how the application is; answers speak for all ingress replicas."""
    routes = APIRouter(prefix="/v1", tags=["status"])
    began = time.monotonic()

    async def total() -> dict[str, Any]:
        return merge(await models.snapshots() if models.snapshots else [metrics.snapshot()])

    @routes.get("/health")
    async def health() -> dict[str, Any]:
        """Alive; how many sessions are open, and with what engine."""
        counted = await total()
        return {
            "status": "ok" if sessions.ready else "starting",
            "active_sessions": counted["active_sessions"],
            "active_connections": counted["active_connections"],
            "ingress_replicas": counted["ingress_replicas"],
            "vad_lanes": sessions.vad.count,
            "transcriber_lanes": sessions.transcriber.count,
            "engine": models.engine,
            "uptime_s": round(time.monotonic() - began, 1),
        }

    @routes.get("/ready")
    async def ready() -> dict[str, str]:
        """200 once the models can be reached, else 503 with Retry-After."""
        if not sessions.ready:
            raise ClientError("not_ready", "the models are still starting", 1)
        return {"status": "ready"}

    @routes.get("/metrics")
    async def metrics_() -> dict[str, Any]:
        """Requests, sessions, latencies and errors since the start; percentiles of the newest."""
        return report(await total())

    return routes
