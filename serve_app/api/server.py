"""Everything that the routes and sockets of one ingress replica use, built in one place."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio

from deployments.interfaces import DiarizationInput, Option
from serve_app.admission.admission import Admission
from serve_app.admission.budget import Shares
from serve_app.admission.gauges import cores
from serve_app.admission.ladder import Level
from serve_app.admission.pause import Pause
from serve_app.admission.weights import Weights
from serve_app.api.backend import Backend
from serve_app.api.drain import Drain
from serve_app.api.job_feed import JobFeed
from serve_app.api.sockets.tcp import TcpPort
from serve_app.api.status import job_counts
from serve_app.api.submission import Submission
from serve_app.api.uploads import Uploads
from serve_app.config import Config
from serve_app.config.drain import CLOSE_TIMEOUT_S
from serve_app.config.engines import DiarizerConfig
from serve_app.config.network import TlsConfig
from serve_app.config.runtime import RuntimeSettings
from serve_app.conversation.driver import Conversations, chat_calls, speech_calls
from serve_app.conversation.histories import Histories
from serve_app.conversation.voices import VoiceCatalog
from serve_app.errors import ClientError
from serve_app.identity.authenticator import Authenticator
from serve_app.identity.gate import Gate, known_origins
from serve_app.identity.refusals import Refusals
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.foreground import Recordings
from serve_app.jobs.live_recording import LiveRecordings
from serve_app.jobs.recogniser import Recogniser
from serve_app.jobs.submission import Jobs
from serve_app.lanes.pool import LanePool, LaneTimings
from serve_app.limits.known_settings import KnownSettings
from serve_app.limits.limiter import Limiter
from serve_app.limits.settings import TenantSettings
from serve_app.limits.shared_store import SharedStore
from serve_app.live.driver import LiveSessions, watch_lanes
from serve_app.live.takeovers import Takeovers
from serve_app.observability.audit import audited, lost
from serve_app.observability.history import Sampler
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import (
    AUDIT_LOST,
    CERTIFICATE_EXPIRES,
    DRAINING,
    LEVEL_CHANGES,
    LIMITS_UNSHARED,
    REPLIES,
    TABLE,
    USAGE_UNWRITTEN,
    USED,
    Kind,
)
from serve_app.security.certificates import TlsFiles
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.followed_certificate import FollowedCertificate
from serve_app.security.scanning import Scanner
from serve_app.security.served_addresses import ServedAddresses
from serve_app.usage.ledger import Ledger
from serve_app.usage.meter import Meter
from serve_app.usage.table import today
from serve_app.usage.totals import Totals

LOOP_SHARE, MODELS_SHARE = 0.001, 0.0005
"""What a session takes at most of an ingress replica's event loop, and of a model replica's, until
it has been measured."""

MANY_SESSIONS = 20
CORES_A_RECORDING = 2

PAUSE_S = 30.0
"""How long a client may wait for its recording while live speech needs everything."""


class Server:
    """Serves only while `running`."""

    def __init__(
        self,
        backend: Backend,
        config: Config,
        metrics: Metrics,
        settings: RuntimeSettings,
        drain: Drain,
    ) -> None:
        self.backend, self.config, self.metrics, self.settings = backend, config, metrics, settings
        self.drain = drain
        scanner = Scanner(config.uploads)
        jobs = Jobs(config.storage, config.jobs, scanner)
        self.certificate = followed_certificate(config.tls, metrics)
        self.refusals = Refusals(metrics)
        self.authenticator = (
            Authenticator(config.auth, jobs.database) if config.auth.required else None
        )
        """None where callers need no key."""
        self.known_origins = known_origins(config.browser, config.auth.required)
        self.gate = Gate(self.known_origins, backend.keys, self.authenticator, self.refusals)
        self.meter = Meter(today)
        _begin_counters(metrics)
        metrics.watch(DRAINING, lambda: drain.begun.is_set())
        metrics.watch(AUDIT_LOST, lost)
        metrics.watch(LIMITS_UNSHARED, lambda: self.limiter.is_unshared)
        self.tenants = TenantSettings(config.tenants)
        weights = Weights(self.tenants)
        self.admission = Admission(
            config.admission, session_cost(config), metrics, self.retry_after_s, weights
        )
        self.pause = Pause()
        self.admission.follow(lambda level, _: self.pause.set(level >= Level.RECORDINGS_PAUSE))
        redis = config.storage.redis_url
        store = SharedStore(redis, uuid.uuid4().hex) if redis else None
        self.limiter = Limiter(self.tenants, metrics, self.retry_after_s, store=store)
        self.meter.follow(self.limiter.used)
        self._known_settings = KnownSettings(jobs.database, self.tenants)
        self.sessions = LiveSessions(
            config.limits,
            config.vad,
            config.transcriber,
            backend.vad,
            backend.transcriber,
            metrics,
            self.admission,
            self.meter,
            self.limiter,
        )
        settings.follow(self.sessions.configure)
        self.gate.follow_revoked(self.sessions.revoke)
        cluster = backend.cluster
        self.takeovers = Takeovers(backend.fence, cluster.fence if cluster else None)
        self.conversations = Conversations(
            config.conversation,
            self.sessions,
            chat_calls(backend.chat, config.chat, self.meter, weights.payer),
            speech_calls(backend.speaker, config.speaker, self.meter, weights.payer),
            _voices(backend, config),
            metrics,
        )
        limits, retry = config.limits, self.retry_after_s
        door = self.admission.request
        self.submission = Submission(backend, jobs, limits, retry, door, self.limiter, weights)
        self.feed = JobFeed(self.submission, drain.begun.is_set)
        self.histories = Histories(
            self.submission.jobs.database, config.storage, config.resume, metrics
        )
        jobs_now = partial(job_counts, self.submission.jobs.queue)
        self.sampler = Sampler(backend.samples, metrics, jobs_now)
        self.ledger = Ledger(self.meter, self.submission.jobs.database)
        self._watch_usage()
        transcriber = backend.engines.transcriber.name
        self.live_recordings = LiveRecordings(self.submission.jobs, transcriber)
        self.uploads = Uploads(limits, retry, self._admit_recording, scanner, weights)
        self.requests = ConcurrencyLimit(
            limits.max_requests, "too_many_requests", "requests", retry, door, weights
        )
        self.close_last: list[Callable[[], Awaitable[None]]] = []
        """Called during a drain when all sessions have ended."""
        self._diarizers = _diarizers(backend, config.diarizer, metrics)
        self.recordings = self._recordings()

    def _admit_recording(self, tenant: str) -> None:
        """Beside many sessions only few at a time, because even a process of low priority takes
        from those that share its processor's caches and threads. Raises `ClientError`."""
        few = max(1, int(cores() / CORES_A_RECORDING))
        if self.sessions.count >= MANY_SESSIONS and self.uploads.in_progress >= few:
            reason = f"beside live sessions at most {few} recordings at a time; retry later"
            raise ClientError("too_many_recordings", reason, self.retry_after_s())
        self.admission.request(tenant)

    def _watch_usage(self) -> None:
        totals = Totals(lambda of, read: self.metrics.watch(USED, read, *of))
        self.meter.follow(totals.used)
        self.metrics.watch(USAGE_UNWRITTEN, lambda: self.ledger.unwritten_s)

    def retry_after_s(self) -> int:
        return self.settings.current.limits.retry_after_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with audited(self.config.audit_file), anyio.create_task_group() as tasks:
            tasks.start_soon(self.refusals.run)
            if self.authenticator:
                tasks.start_soon(self.authenticator.run)
            tasks.start_soon(self.sessions.run)
            tasks.start_soon(self.conversations.run)
            tasks.start_soon(self._diarizers.run)
            tasks.start_soon(self.live_recordings.run)
            tasks.start_soon(self.takeovers.run)
            tasks.start_soon(self.histories.run)
            tasks.start_soon(self.ledger.run)
            tasks.start_soon(self.limiter.run, self.ledger)
            tasks.start_soon(self._known_settings.run)
            tasks.start_soon(self.sampler.run)
            tasks.start_soon(self.feed.run)
            if self.certificate:
                tasks.start_soon(self.certificate.follow)
            if self.config.tcp.port:
                tasks.start_soon(self._tcp_port().run)
            tasks.start_soon(self._drain_once_begun)
            yield
            await self._stop()
            tasks.cancel_scope.cancel()
        await self.submission.jobs.close()

    async def _drain_once_begun(self) -> None:
        """What is open ends, and what has ended is stored."""
        drain = self.drain
        await drain.begun.wait()
        deadline = anyio.current_time() + self.config.longest_drain_s
        await self.sessions.drain(drain.timeout_s)
        for close in self.close_last:
            with anyio.move_on_after(CLOSE_TIMEOUT_S):
                await close()
        await drain.all_answered(deadline - anyio.current_time())
        await self.live_recordings.stored(CLOSE_TIMEOUT_S)
        await self.histories.stored(CLOSE_TIMEOUT_S)
        await self.ledger.stored(CLOSE_TIMEOUT_S)
        drain.ended.set()

    async def _stop(self) -> None:
        """Returns when everything is closed: after the drain, or at once if there was none."""
        if not self.drain.begun.is_set():
            self.drain.timeout_s = 0.0
            self.drain.begin()
        await self.drain.ended.wait()

    def _tcp_port(self) -> TcpPort:
        return TcpPort(
            self.config.tcp,
            self.backend,
            self.gate,
            self.conversations,
            self.metrics,
            self.drain.begun,
            ServedAddresses(self.config.network.allow, self.config.network.deny),
            self.certificate.context if self.certificate else None,
        )

    def _recordings(self) -> Recordings:
        jobs = self.config.jobs
        recogniser = Recogniser(
            self.sessions.transcriber,
            jobs.windows_at_once,
            jobs.window_timeout_s,
            lambda: self.pause.over(PAUSE_S),
        )
        diarization = Diarization(self._diarizers, self.config.diarizer.timeout_s)
        payer_of = self.admission.weights.payer
        return Recordings(recogniser, diarization, self.metrics, self.meter, self.limiter, payer_of)


def followed_certificate(tls: TlsConfig, metrics: Metrics) -> FollowedCertificate | None:
    """The server's, if it has one."""
    if not tls.certificate:
        return None
    followed = FollowedCertificate(TlsFiles(tls.certificate, tls.key, tls.client_ca))
    metrics.watch(CERTIFICATE_EXPIRES, lambda: followed.expires_at)
    return followed


def session_cost(config: Config) -> Shares:
    """What a session is assumed to take until that has been measured."""
    cpu = config.session_cpu
    return Shares(cpu / cores(), min(cpu, LOOP_SHARE), min(cpu, MODELS_SHARE))


def _begin_counters(metrics: Metrics) -> None:
    """Those of an ingress whose labels are known."""
    for metric in TABLE:
        if metric.kind is Kind.COUNTER and not metric.labels:
            metrics.begin(metric)
    for direction in ("up", "down"):
        metrics.begin(LEVEL_CHANGES, direction)
    for status in ("completed", "cancelled", "incomplete", "failed"):
        metrics.begin(REPLIES, status)


def _voices(backend: Backend, config: Config) -> VoiceCatalog:
    return VoiceCatalog(
        backend.voices,
        config.voice,
        config.openai_voices,
        config.speaker.styles,
        Option.BLEND in backend.engines.speaker.options,
    )


def _diarizers(backend: Backend, config: DiarizerConfig, metrics: Metrics) -> LanePool:
    timings = LaneTimings(config.batch_interval_ms / 1000)
    lanes = LanePool(backend.diarizer, timings, DiarizationInput)
    watch_lanes(metrics, "Diarizer", lanes)
    return lanes
