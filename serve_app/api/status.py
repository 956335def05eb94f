"""Health, readiness and metrics."""

import time
from typing import Any

from fastapi import APIRouter

from serve_app.conversation.driver import Conversations
from serve_app.errors import ClientError
from serve_app.observability.metrics import Metrics, merge, report
from serve_app.observability.metrics import conversations as conversation_report
from serve_app.observability.metrics import performance as performance_report


async def total(models: Any, metrics: Metrics) -> dict[str, Any]:
    """What all ingress replicas have counted."""
    return merge(await models.snapshots() if models.snapshots else [metrics.snapshot()])


def router(models: Any, conversations: Conversations, metrics: Metrics) -> APIRouter:
    """Routes that say how the application is; answers speak for all ingress replicas."""
    routes = APIRouter(tags=["status"])
    began = time.monotonic()
    sessions = conversations.sessions

    def is_ready() -> bool:
        return sessions.ready and conversations.ready

    @routes.get("/v1/health")
    @routes.get("/health", include_in_schema=False)  # where vLLM has it, and its clients look
    @routes.get("/status", include_in_schema=False)
    async def health() -> dict[str, Any]:
        """Alive; how many sessions are open, and with what engines."""
        counted = await total(models, metrics)
        return {
            "status": "ok" if is_ready() else "starting",
            "active_sessions": counted["active_sessions"],
            "active_connections": counted["active_connections"],
            "active_conversations": counted["active_conversations"],
            "ingress_replicas": counted["ingress_replicas"],
            "vad_lanes": sessions.vad.count,
            "transcriber_lanes": sessions.transcriber.count,
            "chat_lanes": conversations.chat.lanes.count,
            "speaker_lanes": conversations.speaker.lanes.count,
            "engine": models.engine,
            "engines": models.engines(),
            "uptime_s": round(time.monotonic() - began, 1),
        }

    @routes.get("/v1/ready")
    @routes.get("/ready", include_in_schema=False)
    async def ready() -> dict[str, str]:
        """200 once the models can be reached, else 503 with Retry-After."""
        if not is_ready():
            raise ClientError("not_ready", "the models are still starting", 1)
        return {"status": "ready"}

    @routes.get("/v1/metrics")
    async def metrics_() -> dict[str, Any]:
        """Requests, sessions, latencies and errors since the start; percentiles of the newest."""
        return report(await total(models, metrics))

    return routes


def conversation_router(models: Any, metrics: Metrics) -> APIRouter:
    routes = APIRouter(prefix="/speech-to-speech", tags=["status"])

    @routes.get("/metrics")
    async def conversations() -> dict[str, Any]:
        """Conversations, how their replies ended, and how long the person waited, in ms. `made`
        counts tokens (chat) and samples (speaker), for how many requests each works now."""
        made = await models.made() if models.made else {}
        return conversation_report(await total(models, metrics)) | {"made": made}

    @routes.get("/performance")
    async def performance(raw: bool = False) -> dict[str, Any]:
        """Every stage of the newest turns, in ms; `raw`: with the values themselves."""
        return performance_report(await total(models, metrics), raw)

    return routes
