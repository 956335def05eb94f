"""Health, readiness, status and metrics; answers speak for all replicas."""

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from platform import python_version
from typing import Any

from fastapi import APIRouter, Query

from serve_app import __version__
from serve_app.api.backend import Backend
from serve_app.conversation.driver import Conversations
from serve_app.errors import ClientError, server_restarting
from serve_app.jobs.job import JobState
from serve_app.jobs.queue import Queue
from serve_app.observability import node, table
from serve_app.observability.metrics import Metrics, Total
from serve_app.observability.report import conversations as conversation_report
from serve_app.observability.report import performance as performance_report
from serve_app.observability.report import report

DATABASE_TIMEOUT_S = 1.0
"""After this, health and status answer without the counts of jobs."""


async def total(backend: Backend, metrics: Metrics) -> Total:
    """The metrics of all replicas."""
    return Total(await backend.cluster.snapshots() if backend.cluster else [metrics.snapshot()])


async def job_counts(queue: Queue) -> dict[str, int | None]:
    """Waiting and running jobs; None if the database does not answer."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            counts = await queue.counts()
    except (ClientError, TimeoutError):
        return {"waiting": None, "running": None}
    waiting = counts.pop(JobState.QUEUED)
    return {"waiting": waiting, "running": sum(counts.values())}


class StatusRoutes:
    """Each method is a route."""

    def __init__(
        self,
        backend: Backend,
        conversations: Conversations,
        metrics: Metrics,
        queue: Queue,
        is_draining: Callable[[], bool],
        links: Mapping[str, str],
    ) -> None:
        """`links`: to what else shows this server, by name."""
        self._links = links
        self._is_draining = is_draining
        self._backend = backend
        self._conversations = conversations
        self._sessions = conversations.sessions
        self._metrics = metrics
        self._queue = queue
        self._began = time.monotonic()

    def router(self) -> APIRouter:
        """Paths without `/v1` are those of vLLM and of older servers."""
        routes = APIRouter(tags=["status"])
        for name in ("health", "status", "ready"):
            routes.get(f"/v1/{name}")(getattr(self, name))
            routes.get(f"/{name}", include_in_schema=False)(getattr(self, name))
        routes.get("/v1/metrics")(self.metrics_)
        return routes

    async def health(self) -> dict[str, Any]:
        """Alive; how many sessions and jobs there are, and with what engines."""
        counted, jobs = await self._counts()
        return {
            "status": self._state(),
            **_active(counted),
            "active_jobs": jobs["running"],
            "ingress_replicas": int(counted.by(table.REPLICAS).get("Ingress", 1)),
            "vad_lanes": self._sessions.vad.count,
            "transcriber_lanes": self._sessions.transcriber.count,
            "chat_lanes": self._conversations.chat.lanes.count,
            "speaker_lanes": self._conversations.speaker.lanes.count,
            "engine": self._backend.engines.transcriber.name,
            "engines": self._backend.engines.names(),
            "uptime_s": self._uptime_s(),
        }

    async def status(self) -> dict[str, Any]:
        """Versions, engines with their states, replicas, machines, jobs and sessions."""
        machinery = await _machinery(self._backend)  # first: without Ray's head there is no answer
        counted, jobs = await self._counts()
        return {
            "status": self._state(),
            "versions": {
                "voxray": __version__,
                "python": python_version(),
                "ray": version("ray"),
            },
            **machinery,
            "jobs": jobs,
            **_active(counted),
            "quality_level": int(max(counted.values(table.LEVEL).values(), default=0)),
            "uptime_s": self._uptime_s(),
            "links": self._links,
        }

    async def ready(self) -> dict[str, str]:
        """200 once the models can be reached and until the server stops, else 503 with
        Retry-After."""
        if self._is_draining():
            raise server_restarting()
        if not self._is_ready():
            raise ClientError("not_ready", "the server is still starting; retry later", 1)
        return {"status": "ready"}

    async def metrics_(self) -> dict[str, Any]:
        """Requests, sessions, latencies and errors of all replicas since their start, then every
        metric as Prometheus has it. Percentiles are estimated from histograms."""
        return report(await total(self._backend, self._metrics))

    async def _counts(self) -> tuple[Total, dict[str, int | None]]:
        return await asyncio.gather(total(self._backend, self._metrics), job_counts(self._queue))

    def _is_ready(self) -> bool:
        return self._sessions.ready and self._conversations.ready

    def _state(self) -> str:
        if self._is_draining():
            return "draining"
        return "healthy" if self._is_ready() else "starting"

    def _uptime_s(self) -> float:
        return round(time.monotonic() - self._began, 1)


def _active(counted: Total) -> dict[str, int]:
    return {
        "active_sessions": int(counted.sum(table.SESSIONS_ACTIVE)),
        "active_connections": int(counted.sum(table.CONNECTIONS)),
        "active_conversations": int(counted.sum(table.CONVERSATIONS_ACTIVE)),
    }


async def _machinery(backend: Backend) -> dict[str, Any]:
    """Engines, deployments and nodes. Engines in this process are always warm."""
    if cluster := backend.cluster:
        return {
            "engines": await cluster.model_states(),
            "deployments": await cluster.deployments(),
            "nodes": await cluster.nodes(),
        }
    engines = [
        {"kind": kind, "engine": name, "model": None, "state": "warm", "percent": 100}
        for kind, name in backend.engines.names().items()
    ]
    return {"engines": engines, "deployments": {}, "nodes": [await asyncio.to_thread(node.usage)]}


def conversation_router(backend: Backend, metrics: Metrics) -> APIRouter:
    routes = APIRouter(prefix="/speech-to-speech", tags=["status"])

    @routes.get("/metrics")
    async def conversations() -> dict[str, Any]:
        """Conversations, how their replies ended, and how long people waited, in ms. `made` counts
        what Chat and Speaker produced (tokens, samples) and their current requests."""
        made = await backend.generated()
        return conversation_report(await total(backend, metrics)) | {"made": made}

    @routes.get("/performance")
    async def performance(
        raw: bool = Query(False, description="With the buckets of every histogram."),
    ) -> dict[str, Any]:
        """Every stage of all turns, in ms."""
        return performance_report(await total(backend, metrics), raw)

    return routes
