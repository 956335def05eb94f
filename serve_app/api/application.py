"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import FastAPI

from deployments.interfaces import Voice
from serve_app import upgrade
from serve_app.api import (
    catalog,
    chat,
    errors,
    exchange,
    realtime,
    recordings,
    speech,
    status,
    stream,
    transcriptions,
)
from serve_app.api.edge import Edge
from serve_app.api.places import Places
from serve_app.api.tcp import TcpPort
from serve_app.config import Config
from serve_app.conversation import Conversations
from serve_app.lanes import Fleet
from serve_app.live import LiveSessions
from serve_app.metrics import Metrics
from serve_app.voices import Voices

VERSION = "0.2.0"


@dataclass(frozen=True, slots=True)
class Models:
    """The deployments behind the ingress, and what is asked of the other ingress replicas."""

    vad: Fleet
    transcriber: Fleet
    chats: Fleet
    speaker: Fleet
    engine: str
    """The transcriber engine's name, as every answer says it."""
    languages: tuple[str, ...] | None
    revises: bool
    understands: bool
    chat: str
    """The chat engine's name."""
    voice: str
    """The speaker engine's name."""
    voices: Callable[[], Awaitable[Sequence[Voice]]]
    blends: bool = False
    """The speaker engine can blend voices."""
    snapshots: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """The metrics of all ingress replicas, this one's included; None where it is the only one."""
    made: Callable[[], Awaitable[dict[str, dict[str, int]]]] | None = None
    """How much Chat and Speaker have made."""
    states: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """Every model replica with its engine, model and state; None where models are in-process."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs client secrets; the same for all ingress replicas."""

    def engines(self) -> dict[str, str]:
        return {"transcriber": self.engine, "chat": self.chat, "speaker": self.voice}


def create_app(models: Models, config: Config, metrics: Metrics | None = None) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it."""
    counted = metrics or Metrics()
    sessions = LiveSessions(config, models.vad, models.transcriber, counted)
    voices = Voices(
        models.voices, config.voice, config.openai_voices, config.speaker.styles, models.blends
    )
    conversations = Conversations(config, sessions, models.chats, models.speaker, voices, counted)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sessions.run)
            tasks.start_soon(conversations.run)
            if config.tcp.port:
                tasks.start_soon(TcpPort(config.tcp, models, conversations, counted).run)
            yield
            sessions.shut()
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="voxray",
        version=VERSION,
        lifespan=lifespan,
        summary="Speech on your own machines: live transcription, speech, conversations.",
    )
    app.add_middleware(Edge, limits=config.limits, metrics=counted)
    errors.install(app, counted)
    _add_routes(app, models, conversations, counted)
    return app


def _add_routes(
    app: FastAPI, models: Models, conversations: Conversations, metrics: Metrics
) -> None:
    sessions, limits = conversations.sessions, conversations.config.limits
    uploads = recordings.recording_places(limits)
    requests = Places(limits.max_requests, "too_many_requests", "requests", limits.retry_after_s)
    app.include_router(status.router(models, conversations, metrics))
    app.include_router(status.conversation_router(models, metrics))
    app.include_router(recordings.router(models, sessions, metrics, uploads))
    app.include_router(transcriptions.router(models, sessions, metrics, uploads))
    app.include_router(speech.router(conversations, metrics, requests))
    app.include_router(chat.router(models, conversations, metrics, requests))
    app.include_router(catalog.router(models))
    app.include_router(realtime.router(models, conversations, metrics))
    upgrade.install(
        {
            stream.PATH: stream.route(models, sessions, metrics),
            realtime.PATH: realtime.route(models, conversations, metrics),
            exchange.PATH: exchange.route(models, conversations, metrics),
        }
    )
