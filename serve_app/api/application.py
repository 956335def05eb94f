"""The ASGI application that every Ingress replica runs, and that tests run with fakes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from serve_app import __version__
from serve_app.api import (
    catalog,
    chat,
    configuration,
    deletion,
    docs_page,
    errors,
    job_revisions,
    jobs,
    keys,
    metrics_history,
    recordings,
    sign_in,
    speech,
    status,
    transcriptions,
    tus,
    usage,
    web,
)
from serve_app.api.backend import Backend
from serve_app.api.drain import Drain, DrainGate
from serve_app.api.gate import GateMiddleware
from serve_app.api.legacy import paths, streaming
from serve_app.api.limits import LimitsMiddleware
from serve_app.api.methods import HeadRequests
from serve_app.api.openapi import Api
from serve_app.api.server import Server
from serve_app.api.sockets import conversation_socket, live_socket, plain_http, realtime, upgrade
from serve_app.api.sockets.socketio import PATH as SOCKET_IO
from serve_app.api.sockets.socketio import endpoint as socket_io
from serve_app.config import Config
from serve_app.config.runtime import RuntimeSettings
from serve_app.jobs.deletion import Deletion
from serve_app.observability.metrics import Metrics
from serve_app.observability.requests import WatchRequests
from serve_app.security.middleware import RequestMiddleware
from serve_app.security.request_id import RequestIds
from serve_app.usage.requests import CountRequests


def create_app(
    backend: Backend,
    config: Config,
    metrics: Metrics | None = None,
    settings: RuntimeSettings | None = None,
    serve_adds_id: bool = False,
    drain: Drain | None = None,
) -> FastAPI:
    """Build the application. Its lifespan runs the lanes, so it serves only inside it.

    `serve_adds_id`: Ray Serve, in front of it, gives every answer its `x-request-id`.
    """
    server = Server(
        backend,
        config,
        metrics or Metrics(),
        settings or RuntimeSettings(config),
        drain or Drain(config.drain.timeout_s),
    )
    app = _app(server)
    app.add_middleware(HeadRequests)
    app.add_middleware(
        RequestMiddleware,
        limits=config.limits,
        jobs=config.jobs,
        metrics=server.metrics,
    )
    app.add_middleware(CountRequests, meter=server.meter, free=SOCKET_IO)
    app.add_middleware(
        LimitsMiddleware, limiter=server.limiter, metrics=server.metrics, free=SOCKET_IO
    )
    app.add_middleware(GateMiddleware, gate=server.gate, metrics=server.metrics)
    app.add_middleware(DrainGate, drain=server.drain, metrics=server.metrics, open_paths=SOCKET_IO)
    if not serve_adds_id:
        app.add_middleware(RequestIds)
    app.add_middleware(WatchRequests, metrics=server.metrics)  # the outermost, to see everything
    errors.install(app, server.metrics)
    docs_page.install(app)
    web.install(app)
    app.mount(
        SOCKET_IO,
        socket_io(backend, server.gate, server.sessions, server.metrics, server.close_last.append),
    )
    _add_status_routes(app, server)
    _add_recording_routes(app, server)
    _add_conversation_routes(app, server)
    _add_sockets(app, server)
    return app


def _app(server: Server) -> Api:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.running():
            yield

    return Api(
        server.known_origins,
        server.config.browser.hsts_s,
        server.gate.needs_keys,
        title="voxray",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        summary="Speech on your own machines: live transcription, speech, conversations.",
    )


def _add_status_routes(app: FastAPI, server: Server) -> None:
    backend, metrics, queue = server.backend, server.metrics, server.submission.jobs.queue
    routes = status.StatusRoutes(
        backend,
        server.conversations,
        metrics,
        queue,
        server.drain.begun.is_set,
        server.config.browser.links,
    )
    app.include_router(configuration.router(backend, server.settings))
    app.include_router(routes.router())
    app.include_router(status.conversation_router(backend, metrics))
    app.include_router(catalog.router(backend))
    app.include_router(usage.router(server.ledger))
    app.include_router(metrics_history.router(backend))
    lasts_s = server.config.browser.sign_in_s
    app.include_router(sign_in.SignInRoutes(server.gate, backend.keys, lasts_s).router())
    app.include_router(keys.router(server.config.auth, server.submission.jobs.database))


def _add_recording_routes(app: FastAPI, server: Server) -> None:
    backend, sessions, submission = server.backend, server.sessions, server.submission
    app.include_router(recordings.router(backend, sessions, server.uploads, server.recordings))
    app.include_router(transcriptions.router(backend, sessions, server.uploads, server.recordings))
    app.include_router(
        jobs.JobRoutes(
            submission, server.retry_after_s, server.drain.begun.is_set, server.feed
        ).router()
    )
    app.include_router(job_revisions.router(submission))
    app.include_router(tus.TusRoutes(submission).router())
    app.include_router(jobs.webhook_router(submission))
    app.include_router(deletion.router(Deletion(submission.jobs.database, submission.jobs.objects)))
    app.include_router(paths.LegacyRoutes(submission, server.live_recordings).router())
    app.include_router(streaming.router(backend, sessions))


def _add_conversation_routes(app: FastAPI, server: Server) -> None:
    backend, conversations = server.backend, server.conversations
    app.include_router(speech.router(backend, conversations, server.requests))
    app.include_router(chat.router(backend, conversations, server.requests))
    app.include_router(realtime.router(backend, conversations))


def _add_sockets(app: FastAPI, server: Server) -> None:
    backend, metrics, conversations = server.backend, server.metrics, server.conversations
    sockets = {
        live_socket.PATH: live_socket.route(
            backend,
            server.gate,
            server.sessions,
            metrics,
            server.live_recordings,
            server.takeovers,
            server.config.resume,
        ),
        realtime.PATH: realtime.route(backend, server.gate, conversations, metrics),
        conversation_socket.PATH: conversation_socket.route(
            backend, server.gate, conversations, metrics, _keeping(server)
        ),
    }
    admitting = {
        live_socket.PATH: server.sessions.admit,
        realtime.PATH: conversations.admit,
        conversation_socket.PATH: conversations.admit,
    }
    app.include_router(plain_http.router(admitting, server.admission))
    counted = {path: _counted(path, route, metrics) for path, route in sockets.items()}
    upgrade.install(counted, server.drain.begun.is_set)


def _keeping(server: Server) -> conversation_socket.Keeping:
    history_s = server.config.resume.history_s
    return conversation_socket.Keeping(server.histories, server.takeovers, history_s)


def _counted(path: str, route: upgrade.Route, metrics: Metrics) -> upgrade.Route:
    """Counts the route's handshakes as requests."""

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        answer = route.accept(request)
        metrics.count_request("GET", path, str(int(answer.response.status)))
        return answer

    return route._replace(accept=accept)
