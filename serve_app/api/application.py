"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import FastAPI

from serve_app import upgrade
from serve_app.api import errors, recordings, status, stream
from serve_app.config import Config
from serve_app.lanes import Fleet
from serve_app.live import LiveSessions
from serve_app.metrics import Metrics

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Models:
    """The deployments behind the ingress, and what is asked of the other ingress replicas."""

    vad: Fleet
    transcriber: Fleet
    engine: str
    """The transcriber engine's name, as every answer says it."""
    languages: tuple[str, ...] | None
    snapshots: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """The metrics of all ingress replicas, this one's included; None where it is the only one."""


def create_app(models: Models, config: Config, metrics: Metrics | None = None) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it."""
    counted = metrics or Metrics()
    sessions = LiveSessions(config, models.vad, models.transcriber, counted)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sessions.run)
            yield
            sessions.shut()
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="voxray",
        version=VERSION,
        lifespan=lifespan,
        summary="Live speech-to-text on your own machines.",
    )
    errors.install(app, counted)
    app.include_router(status.router(models, sessions, counted))
    app.include_router(recordings.router(models, sessions, counted))
    upgrade.install({stream.PATH: stream.accept(models, sessions, counted)})
    return app
