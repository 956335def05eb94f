"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import FastAPI

from deployments.interfaces import Voice, Voices
from serve_app import __version__, upgrade
from serve_app.api import (
    catalog,
    chat,
    configuration,
    errors,
    exchange,
    jobs,
    older,
    realtime,
    recordings,
    speech,
    status,
    stream,
    streaming,
    transcriptions,
)
from serve_app.api.edge import Edge
from serve_app.api.places import Places
from serve_app.api.socketio import PATH as SOCKET_IO
from serve_app.api.socketio import endpoint as socket_io
from serve_app.api.tcp import TcpPort
from serve_app.config import Config
from serve_app.conversation import Conversations
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.intake import Jobs
from serve_app.jobs.keeping import Keeping
from serve_app.lanes import Fleet, Lanes, Terms
from serve_app.live import LANE_PATIENCE_S, LiveSessions
from serve_app.metrics import Metrics
from serve_app.settings import Settings
from serve_app.voices import Voices as VoiceNames


@dataclass(frozen=True, slots=True)
class Models:
    """The deployments behind the ingress, and what is asked of the other ingress replicas."""

    vad: Fleet
    transcriber: Fleet
    chats: Fleet
    speaker: Fleet
    diarizer: Fleet
    engine: str
    """The transcriber engine's name, as every answer says it."""
    languages: tuple[str, ...] | None
    revises: bool
    understands: bool
    chat: str
    """The chat engine's name."""
    voice: str
    """The speaker engine's name."""
    tells_apart: str
    """The diarizer engine's name."""
    voices: Callable[[], Awaitable[Sequence[Voice]]]
    blends: bool = False
    """The speaker engine can blend voices."""
    snapshots: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """The metrics of all ingress replicas, this one's included; None where it is the only one."""
    made: Callable[[], Awaitable[dict[str, dict[str, int]]]] | None = None
    """How much Chat and Speaker have made."""
    states: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """Every model replica with its engine, model and state; None where models are in-process."""
    reconfigure: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    """Tells all ingress replicas of changed settings; None where this is the only one."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs client secrets; the same for all ingress replicas."""

    def engines(self) -> dict[str, str]:
        return {
            "transcriber": self.engine,
            "chat": self.chat,
            "speaker": self.voice,
            "diarizer": self.tells_apart,
        }


def create_app(
    models: Models,
    config: Config,
    metrics: Metrics | None = None,
    settings: Settings | None = None,
) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it."""
    counted = metrics or Metrics()
    sessions = LiveSessions(config, models.vad, models.transcriber, counted)
    settings = settings or Settings(config)
    settings.follow(sessions.configure)
    voices = VoiceNames(
        models.voices, config.voice, config.openai_voices, config.speaker.styles, models.blends
    )
    conversations = Conversations(config, sessions, models.chats, models.speaker, voices, counted)
    terms = Terms(config.diarizer.tick_ms / 1000, LANE_PATIENCE_S)
    diarizers = Lanes(models.diarizer, terms, Voices)
    diarization = Diarization(diarizers, config.diarizer.timeout_s)
    desk = jobs.Desk(models, Jobs(config), config.limits, counted)
    keeping = Keeping(desk.jobs, models.engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sessions.run)
            tasks.start_soon(conversations.run)
            tasks.start_soon(diarizers.run)
            tasks.start_soon(keeping.run, jobs.TENANT)
            if config.tcp.port:
                tasks.start_soon(TcpPort(config.tcp, models, conversations, counted).run)
            yield
            sessions.shut()
            tasks.cancel_scope.cancel()
        await desk.jobs.close()

    app = FastAPI(
        title="voxray",
        version=__version__,
        lifespan=lifespan,
        summary="Speech on your own machines: live transcription, speech, conversations.",
    )
    app.add_middleware(Edge, limits=config.limits, metrics=counted)
    errors.install(app, counted)
    app.mount(SOCKET_IO, socket_io(models, sessions, counted))
    app.include_router(configuration.router(models, settings))
    _add_routes(app, models, conversations, desk, keeping, diarization, counted)
    return app


def _add_routes(
    app: FastAPI,
    models: Models,
    conversations: Conversations,
    desk: jobs.Desk,
    keeping: Keeping,
    diarization: Diarization,
    metrics: Metrics,
) -> None:
    sessions, limits = conversations.sessions, conversations.config.limits
    uploads = recordings.recording_places(limits)
    requests = Places(limits.max_requests, "too_many_requests", "requests", limits.retry_after_s)
    app.include_router(status.router(models, conversations, metrics))
    app.include_router(status.conversation_router(models, metrics))
    app.include_router(recordings.router(models, sessions, metrics, uploads))
    apart = transcriptions.told_apart(diarization, limits)
    app.include_router(transcriptions.router(models, sessions, metrics, uploads, apart))
    app.include_router(jobs.router(desk, limits))
    app.include_router(jobs.webhook_router(desk))
    app.include_router(older.router(desk, keeping))
    app.include_router(streaming.router(models, sessions, metrics))
    app.include_router(speech.router(conversations, metrics, requests))
    app.include_router(chat.router(models, conversations, metrics, requests))
    app.include_router(catalog.router(models))
    app.include_router(realtime.router(models, conversations, metrics))
    upgrade.install(
        {
            stream.PATH: stream.route(models, sessions, metrics, keeping),
            realtime.PATH: realtime.route(models, conversations, metrics),
            exchange.PATH: exchange.route(models, conversations, metrics),
        }
    )
