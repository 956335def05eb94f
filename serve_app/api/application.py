"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import FastAPI
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from deployments.interfaces import NO_OPTIONS, DiarizationInput, Option, Options, Voice
from serve_app import __version__
from serve_app.api import (
    catalog,
    chat,
    configuration,
    docs_page,
    errors,
    jobs,
    recordings,
    speech,
    status,
    transcriptions,
)
from serve_app.api.legacy import paths, streaming
from serve_app.api.sockets import conversation_socket, live_socket, realtime, upgrade
from serve_app.api.sockets.socketio import PATH as SOCKET_IO
from serve_app.api.sockets.socketio import endpoint as socket_io
from serve_app.api.sockets.tcp import TcpPort
from serve_app.api.uploads import Uploads
from serve_app.config import Config
from serve_app.config.runtime import RuntimeSettings
from serve_app.conversation.driver import Conversations
from serve_app.conversation.voices import VoiceCatalog
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.live_recording import LiveRecordings
from serve_app.jobs.submission import Jobs
from serve_app.lanes.pool import Lanes, LaneTimings, ReplicaSet
from serve_app.live.driver import LANE_PATIENCE_S, LiveSessions, watch_lanes
from serve_app.live.options import Engine, Engines
from serve_app.observability.metrics import Metrics, Snapshot
from serve_app.observability.requests import CountRequests
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.middleware import RequestMiddleware


@dataclass(frozen=True, slots=True)
class Models:
    """The deployments behind the ingress, and what is asked of the other ingress replicas."""

    vad: ReplicaSet
    transcriber: ReplicaSet
    chats: ReplicaSet
    speaker: ReplicaSet
    diarizer: ReplicaSet
    engine: str
    """The transcriber engine's name, as every answer says it."""
    languages: tuple[str, ...] | None
    revises: bool
    chat: str
    """The chat engine's name."""
    voice: str
    """The speaker engine's name."""
    tells_apart: str
    """The diarizer engine's name."""
    voices: Callable[[], Awaitable[Sequence[Voice]]]
    options: Mapping[str, Options] = field(default_factory=dict)
    """What the engines declare, by kind."""
    snapshots: Callable[[], Awaitable[list[Snapshot]]] | None = None
    """The metrics of all replicas of all deployments; None where this is the only one."""
    made: Callable[[], Awaitable[dict[str, dict[str, int]]]] | None = None
    """How much Chat and Speaker have made."""
    states: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """Every model replica with its engine, model and state; None where models are in-process."""
    deployments: Callable[[], Awaitable[dict[str, Any]]] | None = None
    """Every deployment with its status and its replicas by state; None where there is no Serve."""
    nodes: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """What is in use of every machine (`node.usage`); None where this is the only one."""
    reconfigure: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] | None = None
    """Changes settings on all ingress replicas, those to come included, and gives everything that
    was changed since the start; None where this is the only one."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs client secrets; the same for all ingress replicas."""

    @property
    def understands(self) -> bool:
        """The transcriber answers questions about audio."""
        return Option.PROMPT in self.known("transcriber").options

    def known(self, kind: str) -> Engine:
        """What is known of the engine of a kind."""
        languages = self.languages if kind == "transcriber" else None
        return Engine(self.engines()[kind], self.options.get(kind, NO_OPTIONS), languages)

    def conversing(self) -> Engines:
        return Engines(*(self.known(kind) for kind in Engines._fields))

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
    settings: RuntimeSettings | None = None,
    serve_adds_id: bool = False,
) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it.

    `serve_adds_id`: Ray Serve, in front of it, gives every answer its `x-request-id`.
    """
    counted = metrics or Metrics()
    sessions = LiveSessions(config, models.vad, models.transcriber, counted)
    settings = settings or RuntimeSettings(config)
    settings.follow(sessions.configure)
    voices = VoiceCatalog(
        models.voices,
        config.voice,
        config.openai_voices,
        config.speaker.styles,
        Option.BLEND in models.known("speaker").options,
    )
    conversations = Conversations(config, sessions, models.chats, models.speaker, voices, counted)
    settings.follow(conversations.configure)

    def retry_after_s() -> int:
        return settings.current.limits.retry_after_s

    terms = LaneTimings(config.diarizer.batch_interval_ms / 1000, LANE_PATIENCE_S)
    diarizers = Lanes(models.diarizer, terms, DiarizationInput)
    watch_lanes(counted, "Diarizer", diarizers)
    diarization = Diarization(diarizers, config.diarizer.timeout_s)
    submission = jobs.Submission(models, Jobs(config), config.limits, retry_after_s)
    live_recordings = LiveRecordings(submission.jobs, models.engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sessions.run)
            tasks.start_soon(conversations.run)
            tasks.start_soon(diarizers.run)
            tasks.start_soon(live_recordings.run, jobs.TENANT)
            if config.tcp.port:
                tasks.start_soon(TcpPort(config.tcp, models, conversations, counted).run)
            yield
            sessions.shut()
            tasks.cancel_scope.cancel()
        await submission.jobs.close()

    app = FastAPI(
        title="voxray",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        summary="Speech on your own machines: live transcription, speech, conversations.",
    )
    app.add_middleware(RequestMiddleware, config=config, metrics=counted, adds_id=not serve_adds_id)
    app.add_middleware(CountRequests, metrics=counted)  # the outermost: whoever answers is counted
    errors.install(app, counted)
    docs_page.install(app)
    app.mount(SOCKET_IO, socket_io(models, sessions, counted))
    app.include_router(configuration.router(models, settings))
    _add_routes(
        app, models, conversations, submission, live_recordings, diarization, counted, retry_after_s
    )
    return app


def _add_routes(
    app: FastAPI,
    models: Models,
    conversations: Conversations,
    submission: jobs.Submission,
    live_recordings: LiveRecordings,
    diarization: Diarization,
    metrics: Metrics,
    retry_after_s: Callable[[], int],
) -> None:
    sessions, limits = conversations.sessions, conversations.config.limits
    uploads = Uploads(limits, retry_after_s)
    requests = ConcurrencyLimit(limits.max_requests, "too_many_requests", "requests", retry_after_s)
    app.include_router(status.router(models, conversations, metrics, submission.jobs.queue))
    app.include_router(status.conversation_router(models, metrics))
    app.include_router(recordings.router(models, sessions, uploads))
    apart = transcriptions.told_apart(diarization, limits)
    app.include_router(transcriptions.router(models, sessions, uploads, apart))
    app.include_router(jobs.router(submission, retry_after_s))
    app.include_router(jobs.webhook_router(submission))
    app.include_router(paths.router(submission, live_recordings))
    app.include_router(streaming.router(models, sessions))
    app.include_router(speech.router(models, conversations, requests))
    app.include_router(chat.router(models, conversations, requests))
    app.include_router(catalog.router(models))
    app.include_router(realtime.router(models, conversations))
    sockets = {
        live_socket.PATH: live_socket.route(models, sessions, metrics, live_recordings),
        realtime.PATH: realtime.route(models, conversations, metrics),
        conversation_socket.PATH: conversation_socket.route(models, conversations, metrics),
    }
    upgrade.install({path: _counted(path, it, metrics) for path, it in sockets.items()})


def _counted(path: str, route: upgrade.Route, metrics: Metrics) -> upgrade.Route:
    """Its handshakes are requests, too."""

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        answer = route.accept(request)
        metrics.count_request("GET", path, str(int(answer.response.status)))
        return answer

    return route._replace(accept=accept)
