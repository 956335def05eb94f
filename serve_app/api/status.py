"""Health, readiness, status and metrics; answers speak for all replicas."""

import asyncio
import time
from importlib.metadata import version
from platform import python_version
from typing import Any

from fastapi import APIRouter, Query

from serve_app import __version__
from serve_app.api.backend import Backend
from serve_app.conversation.driver import Conversations
from serve_app.errors import ClientError
from serve_app.jobs.job import JobState
from serve_app.jobs.queue import Queue
from serve_app.observability import node, table
from serve_app.observability.metrics import Metrics, Total
from serve_app.observability.report import conversations as conversation_report
from serve_app.observability.report import performance as performance_report
from serve_app.observability.report import report

DATABASE_PATIENCE_S = 1.0
"""Whoever asks how we are is answered, with or without the database."""


async def total(backend: Backend, metrics: Metrics) -> Total:
    """What all replicas have counted."""
    return Total(await backend.cluster.snapshots() if backend.cluster else [metrics.snapshot()])


async def jobs_at_work(queue: Queue) -> dict[str, int | None]:
    """Jobs that wait and that run; None where the database is away."""
    try:
        async with asyncio.timeout(DATABASE_PATIENCE_S):
            counts = await queue.counts()
    except (ClientError, TimeoutError):
        return {"waiting": None, "running": None}
    waiting = counts.pop(JobState.QUEUED)
    return {"waiting": waiting, "running": sum(counts.values())}


def router(
    backend: Backend, conversations: Conversations, metrics: Metrics, queue: Queue
) -> APIRouter:
    routes = APIRouter(tags=["status"])
    began = time.monotonic()
    sessions = conversations.sessions

    def is_ready() -> bool:
        return sessions.ready and conversations.ready

    def state() -> str:
        return "healthy" if is_ready() else "starting"

    def active(counted: Total) -> dict[str, int]:
        return {
            "active_sessions": int(counted.sum(table.SESSIONS_ACTIVE)),
            "active_connections": int(counted.sum(table.CONNECTIONS)),
            "active_conversations": int(counted.sum(table.CONVERSATIONS_ACTIVE)),
        }

    @routes.get("/v1/health")
    @routes.get("/health", include_in_schema=False)  # where vLLM has it, and its clients look
    async def health() -> dict[str, Any]:
        """Alive; how many sessions and jobs there are, and with what engines."""
        counted, jobs = await asyncio.gather(total(backend, metrics), jobs_at_work(queue))
        return {
            "status": state(),
            **active(counted),
            "active_jobs": jobs["running"],
            "ingress_replicas": int(counted.by(table.REPLICAS).get("Ingress", 1)),
            "vad_lanes": sessions.vad.count,
            "transcriber_lanes": sessions.transcriber.count,
            "chat_lanes": conversations.chat.lanes.count,
            "speaker_lanes": conversations.speaker.lanes.count,
            "engine": backend.engines.transcriber.name,
            "engines": backend.engines.names(),
            "uptime_s": round(time.monotonic() - began, 1),
        }

    @routes.get("/v1/status")
    @routes.get("/status", include_in_schema=False)
    async def status() -> dict[str, Any]:
        """Versions, engines with their states, replicas, machines, jobs and sessions."""
        counted, jobs = await asyncio.gather(total(backend, metrics), jobs_at_work(queue))
        return {
            "status": state(),
            "versions": {
                "voxray": __version__,
                "python": python_version(),
                "ray": version("ray"),
            },
            "engines": await _engines(backend),
            "deployments": await backend.cluster.deployments() if backend.cluster else {},
            "nodes": await backend.cluster.nodes()
            if backend.cluster
            else [await asyncio.to_thread(node.usage)],
            "jobs": jobs,
            **active(counted),
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
        """Requests, sessions, latencies and errors of all replicas since their start, then every
        metric as Prometheus has it. Percentiles are estimated from histograms."""
        return report(await total(backend, metrics))

    return routes


async def _engines(backend: Backend) -> list[dict[str, Any]]:
    """Every model replica's engine and state; engines in this process are simply there."""
    if backend.cluster:
        known: list[dict[str, Any]] = await backend.cluster.model_states()
        return known
    return [
        {"kind": kind, "engine": name, "model": None, "state": "warm", "percent": 100}
        for kind, name in backend.engines.names().items()
    ]


def conversation_router(backend: Backend, metrics: Metrics) -> APIRouter:
    routes = APIRouter(prefix="/speech-to-speech", tags=["status"])

    @routes.get("/metrics")
    async def conversations() -> dict[str, Any]:
        """Conversations, how their replies ended, and how long the person waited, in ms. `made`
        counts tokens (chat) and samples (speaker), for how many requests each works now."""
        made = await backend.generated()
        return conversation_report(await total(backend, metrics)) | {"made": made}

    @routes.get("/performance")
    async def performance(
        raw: bool = Query(False, description="With the buckets of every histogram."),
    ) -> dict[str, Any]:
        """Every stage of all turns, in ms."""
        return performance_report(await total(backend, metrics), raw)

    return routes
