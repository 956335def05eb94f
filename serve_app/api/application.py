"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from deployments.interfaces import DiarizationInput, Option
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
from serve_app.api.backend import Backend
from serve_app.api.legacy import paths, streaming
from serve_app.api.methods import HeadRequests
from serve_app.api.openapi import Api
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
from serve_app.jobs.foreground import Recordings
from serve_app.jobs.live_recording import LiveRecordings
from serve_app.jobs.recogniser import Recogniser
from serve_app.jobs.submission import Jobs
from serve_app.lanes.pool import Lanes, LaneTimings
from serve_app.live.driver import LANE_TIMEOUT_S, LiveSessions, watch_lanes
from serve_app.observability.metrics import Metrics
from serve_app.observability.requests import CountRequests
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.middleware import RequestMiddleware


def create_app(
    backend: Backend,
    config: Config,
    metrics: Metrics | None = None,
    settings: RuntimeSettings | None = None,
    serve_adds_id: bool = False,
) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it.

    `serve_adds_id`: Ray Serve, in front of it, gives every answer its `x-request-id`.
    """
    counted = metrics or Metrics()
    sessions = LiveSessions(config, backend.vad, backend.transcriber, counted)
    settings = settings or RuntimeSettings(config)
    settings.follow(sessions.configure)
    voices = VoiceCatalog(
        backend.voices,
        config.voice,
        config.openai_voices,
        config.speaker.styles,
        Option.BLEND in backend.engines.speaker.options,
    )
    conversations = Conversations(config, sessions, backend.chat, backend.speaker, voices, counted)
    settings.follow(conversations.configure)

    def retry_after_s() -> int:
        return settings.current.limits.retry_after_s

    terms = LaneTimings(config.diarizer.batch_interval_ms / 1000, LANE_TIMEOUT_S)
    diarizers = Lanes(backend.diarizer, terms, DiarizationInput)
    watch_lanes(counted, "Diarizer", diarizers)
    diarization = Diarization(diarizers, config.diarizer.timeout_s)
    at = config.jobs
    recogniser = Recogniser(sessions.transcriber, at.windows_at_once, at.window_timeout_s)
    foreground = Recordings(recogniser, diarization, counted)
    submission = jobs.Submission(backend, Jobs(config), config.limits, retry_after_s)
    live_recordings = LiveRecordings(submission.jobs, backend.engines.transcriber.name)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sessions.run)
            tasks.start_soon(conversations.run)
            tasks.start_soon(diarizers.run)
            tasks.start_soon(live_recordings.run)
            if config.tcp.port:
                tasks.start_soon(TcpPort(config.tcp, backend, conversations, counted).run)
            yield
            sessions.shut()
            tasks.cancel_scope.cancel()
        await submission.jobs.close()

    app = Api(
        title="voxray",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        summary="Speech on your own machines: live transcription, speech, conversations.",
    )
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestMiddleware, config=config, metrics=counted, adds_id=not serve_adds_id)
    app.add_middleware(CountRequests, metrics=counted)  # the outermost: whoever answers is counted
    errors.install(app, counted)
    docs_page.install(app)
    app.mount(SOCKET_IO, socket_io(backend, sessions, counted))
    app.include_router(configuration.router(backend, settings))
    _add_routes(
        app,
        backend,
        conversations,
        submission,
        live_recordings,
        foreground,
        counted,
        retry_after_s,
    )
    return app


def _add_routes(
    app: FastAPI,
    backend: Backend,
    conversations: Conversations,
    submission: jobs.Submission,
    live_recordings: LiveRecordings,
    foreground: Recordings,
    metrics: Metrics,
    retry_after_s: Callable[[], int],
) -> None:
    sessions, limits = conversations.sessions, conversations.config.limits
    uploads = Uploads(limits, retry_after_s)
    requests = ConcurrencyLimit(limits.max_requests, "too_many_requests", "requests", retry_after_s)
    app.include_router(status.router(backend, conversations, metrics, submission.jobs.queue))
    app.include_router(status.conversation_router(backend, metrics))
    app.include_router(recordings.router(backend, sessions, uploads, foreground))
    app.include_router(transcriptions.router(backend, sessions, uploads, foreground))
    app.include_router(jobs.router(submission, retry_after_s))
    app.include_router(jobs.webhook_router(submission))
    app.include_router(paths.router(submission, live_recordings))
    app.include_router(streaming.router(backend, sessions))
    app.include_router(speech.router(backend, conversations, requests))
    app.include_router(chat.router(backend, conversations, requests))
    app.include_router(catalog.router(backend))
    app.include_router(realtime.router(backend, conversations))
    sockets = {
        live_socket.PATH: live_socket.route(backend, sessions, metrics, live_recordings),
        realtime.PATH: realtime.route(backend, conversations, metrics),
        conversation_socket.PATH: conversation_socket.route(backend, conversations, metrics),
    }
    upgrade.install({path: _counted(path, it, metrics) for path, it in sockets.items()})


def _counted(path: str, route: upgrade.Route, metrics: Metrics) -> upgrade.Route:
    """Its handshakes are requests, too."""

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        answer = route.accept(request)
        metrics.count_request("GET", path, str(int(answer.response.status)))
        return answer

    return route._replace(accept=accept)
