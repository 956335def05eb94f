"""The replicas of each deployment: how Serve starts, reaches, scales and stops them."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import anyio
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.interfaces import (
    AudioDelta,
    ChatDelta,
    DiarizationResult,
    Hypothesis,
    Supervised,
    VadInput,
    VadResult,
    Voice,
)
from deployments.requests import RequestModel
from deployments.vad import Vad
from serve_app import __version__
from serve_app.cluster.environment import LANES_HOST
from serve_app.cluster.head import HeadUnavailable, ask_head
from serve_app.cluster.scaling import JOBS, SESSIONS
from serve_app.cluster.serve_handles import (
    ModelState,
    Prometheus,
    ServeReplicaSet,
    broadcast,
    connected,
    keep_changes,
    model_states,
    serve_status,
    signing_keys,
    stored_settings,
)
from serve_app.cluster.serve_ports import listen_only_on
from serve_app.cluster.serve_shutdown import shutdown_sign
from serve_app.config import Config
from serve_app.config.logs import LoggingConfig
from serve_app.config.runtime import RuntimeSettings
from serve_app.engines import MODELS, configured_engines, new_engine
from serve_app.garbage import collect_rarely
from serve_app.lanes.wire import Address, LaneServer
from serve_app.live.fence import Claim, SessionElsewhere
from serve_app.models import weights
from serve_app.models.weights import Absent
from serve_app.observability import node, otlp, tracing
from serve_app.observability.heap import HeapTrimmer, glibc
from serve_app.observability.history import Sample
from serve_app.observability.log_pipe import LOG_PIPE, PipeWriter
from serve_app.observability.logs import start_logging
from serve_app.observability.metrics import Metrics, Snapshot
from serve_app.observability.table import MADE, MODEL_SESSIONS, REPLICAS
from serve_app.observability.trace import parsed
from serve_app.security.signing import SigningKeys

log = logging.getLogger("voxray.app")


APP_NAME = "voxray"


POLL_S = 0.1
"""How often a replica looks whether it may end, or has to."""

LANES_DRAIN_S = 60.0
"""How long sessions may stay on a model replica that Serve ends, if there is no other one: its GPU
may be what the other one waits for."""


CATCH_UP_S = REFRESH_S = 5.0
"""How often settings are read again, and gauges go to Prometheus."""


SPANS_S = 3.0
"""How long a replica that ends waits for the last spans to be taken."""


LOG_BYTES, LOG_FILES = 100 << 20, 5
"""Of a replica's log file before a new one begins, and how many old ones are kept."""


NICENESS = 10
"""Of processes for recordings, so that live speech goes first. Not more, because a slow worker
would hold SQLite's lock for longer."""


class Replica:
    """What replicas of all deployments have: metrics, and the state of their node."""

    def __init__(self, deployment: str, logging_: LoggingConfig) -> None:
        if host := os.environ.get(LANES_HOST):
            listen_only_on(host)
        replica = serve.get_replica_context().replica_id.unique_id
        _start_logging(logging_, deployment, replica)
        log.info("replica_started", extra={"version": __version__})
        self._spans = _start_tracing(deployment, replica)
        self._metrics = Metrics(Prometheus(deployment, replica))
        self._metrics.watch(REPLICAS, lambda: 1, deployment)
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        collect_rarely()
        trimmer = HeapTrimmer(glibc())
        while True:
            self._metrics.refresh()
            await asyncio.to_thread(trimmer.look)
            await asyncio.sleep(REFRESH_S)

    async def snapshot(self) -> Snapshot:
        return self._metrics.snapshot()

    async def node(self) -> dict[str, Any]:
        return await asyncio.to_thread(node.usage)

    async def __del__(self) -> None:
        self._refreshing.cancel()
        if self._spans:
            with anyio.move_on_after(SPANS_S):
                await anyio.to_thread.run_sync(self._spans.stop, abandon_on_cancel=True)


class LaneReplica(Replica):
    """What replicas behind lanes have: the lanes, their address, and scaling by their sessions."""

    def __init__(self, deployment: str, logging_: LoggingConfig) -> None:
        super().__init__(deployment, logging_)
        self._deployment = deployment
        self._lanes: LaneServer | None = None
        self._address: Address | None = None

    async def _open_lanes(self, model: Any, item: type) -> None:
        self._lanes = LaneServer(model, item)
        name = serve.get_replica_context().replica_id.unique_id
        self._address = await self._lanes.start(name, _lanes_host())
        self._metrics.watch(MODEL_SESSIONS, self._lanes.sessions, self._deployment)

    async def address(self) -> dict[str, Any]:
        """An `Address`, as plain data: the one who asks may have another version of that class."""
        assert self._address, "Serve awaits reconfigure before it sends requests"
        return self._address._asdict()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {SESSIONS: self._lanes.sessions() if self._lanes else 0.0}

    async def __del__(self) -> None:
        """Sessions leave when there is another replica for them; without this one too early, they
        would wait for it."""
        await self._left()
        await super().__del__()
        if self._lanes:
            self._lanes.stop()

    async def _left(self) -> None:
        with anyio.move_on_after(LANES_DRAIN_S):
            while self._lanes and self._lanes.sessions():  # noqa: ASYNC110  # lanes count only
                await asyncio.sleep(POLL_S)


class VadReplica(LaneReplica):
    """A replica of the VAD."""

    def __init__(self, logging_: LoggingConfig) -> None:
        super().__init__("Vad", logging_)

    async def reconfigure(self, _: dict[str, Any]) -> None:
        """Serve awaits this before the replica is ready."""
        if self._address is None:
            await self._open_lanes(Vad(), VadInput)


class ModelReplica(LaneReplica):
    """A replica with an engine: loaded before it can be reached, ended when its engine dies."""

    def __init__(self, kind: str, config: Config) -> None:
        super().__init__(kind.capitalize(), config.logging)
        if kind == "diarizer":
            os.nice(NICENESS)
        self._kind = kind
        self._config = config
        self._model: Any = None
        self._state = ModelState(kind, *_described(kind, config))
        self._tasks: list[asyncio.Task[None]] = []

    async def reconfigure(self, _: dict[str, Any]) -> None:
        """Serve awaits this before the replica is ready; if the model cannot load, the replica
        fails."""
        if self._address is None:
            self._tasks.append(asyncio.create_task(self._state.keep_publishing()))
            try:
                await self._load()
            except Exception as error:
                await self._state.publish(
                    "absent" if isinstance(error, Absent) else "failed", error
                )
                raise
            await self._state.publish("warm")

    async def _load(self) -> None:
        began = time.monotonic()
        engine = await asyncio.to_thread(new_engine, self._kind, self._config)
        model, item = MODELS[self._kind]
        self._model = model(engine)
        await self._model.start()
        fields = {"engine": self._config.engines[self._kind][0], "load_s": _since(began)}
        log.info("engine_loaded", extra=fields)
        await self._open_lanes(self._model, item)
        if isinstance(self._model, RequestModel):
            name = self._config.engines[self._kind][0]
            self._model.on_ended = partial(_record_request, self._kind, name)
        if hasattr(self._model, "stats"):
            self._metrics.watch(MADE, lambda: self._model.stats()["made"], self._deployment)
        assert self._lanes
        self._tasks.append(asyncio.create_task(self._end_after(self._lanes.wait_stalled())))
        if isinstance(engine, Supervised):
            self._tasks.append(asyncio.create_task(self._end_after(engine.wait_dead())))

    async def _end_after(self, death: Awaitable[str]) -> None:
        """End this process with its engine: its lanes break at once, their sessions move to another
        replica, and Serve starts a new one."""
        reason = await death
        log.error("engine_died", extra={"kind": self._kind})
        if self._lanes:
            self._lanes.stop()
        await self._state.publish("failed", reason)
        os._exit(1)

    async def made(self) -> dict[str, int]:
        counts: dict[str, int] = self._model.stats()
        return counts

    async def voices(self) -> list[Voice]:
        return list(await self._model.voices())

    async def __del__(self) -> None:
        await super().__del__()
        for task in self._tasks:
            task.cancel()
        if self._model:
            await self._model.stop()


def _described(kind: str, config: Config) -> tuple[str, str | None, int]:
    """An engine's name, its model and the bytes of its weights."""
    name, _ = config.engines[kind]
    leaf = config.with_weights.get(kind)
    known = weights.known(config.models, leaf) if leaf else None
    return name, leaf.model if leaf else None, known.weights if known else 0


class WorkerReplica(Replica):
    """Runs jobs. It gives way to live speech on the same node."""

    def __init__(
        self,
        config: Config,
        transcriber: DeploymentHandle[Any],
        diarizer: DeploymentHandle[Any],
    ) -> None:
        from serve_app.jobs.worker import (
            Worker,
        )  # half a second of imports that other replicas need not pay

        super().__init__("Worker", config.logging)
        os.nice(NICENESS)
        self._worker = Worker(
            config.worker,
            ServeReplicaSet(transcriber, Hypothesis),
            ServeReplicaSet(diarizer, DiarizationResult),
            self._metrics,
        )
        self._work = asyncio.get_running_loop().create_task(self._worker.run())
        self._draining = False

    async def check_health(self) -> None:
        """Serve replaces a worker that has ended."""
        if self._work.done() and not self._draining:
            self._work.result()

    async def drain(self) -> None:
        """Take no more jobs; those that run go back to the queue."""
        self._draining = True
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {JOBS: self._worker.load}

    async def __del__(self) -> None:
        await self.drain()
        await super().__del__()


@serve.ingress()
class Ingress(Replica):
    """Sockets, REST, sessions. It has no model."""

    def __init__(
        self,
        config: Config,
        vad: DeploymentHandle[Any],
        transcriber: DeploymentHandle[Any],
        chat: DeploymentHandle[Any],
        speaker: DeploymentHandle[Any],
        diarizer: DeploymentHandle[Any],
        worker: DeploymentHandle[Any],
    ) -> None:
        from serve_app.api import (  # a second of imports that other replicas need not pay
            Backend,
            Drain,
        )

        super().__init__("Ingress", config.logging)
        warn_if_open(config)
        self._config = config
        self._settings = RuntimeSettings(config)
        self._settings.apply(stored_settings())
        self._chat, self._speaker = chat, speaker
        others = (vad, transcriber, chat, speaker, diarizer, worker)
        self._ingresses = connected(serve.get_deployment_handle("Ingress", APP_NAME))
        self._deployments = (self._ingresses, *map(connected, others))
        self._backend = Backend(
            vad=ServeReplicaSet(vad, VadResult),
            transcriber=ServeReplicaSet(transcriber, Hypothesis),
            chat=ServeReplicaSet(chat, ChatDelta),
            speaker=ServeReplicaSet(speaker, AudioDelta),
            diarizer=ServeReplicaSet(diarizer, DiarizationResult),
            engines=configured_engines(config),
            voices=self._voices,
            generated=self._generated,
            cluster=self,
            keys=SigningKeys(signing_keys(config.resume)),
        )
        self._drain = Drain(config.drain.timeout_s)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._catch_up()), loop.create_task(self._notice_the_end())]

    def __serve_build_asgi_app__(self) -> Any:
        from serve_app.api import create_app

        return create_app(
            self._backend,
            self._config,
            self._metrics,
            self._settings,
            serve_adds_id=True,
            drain=self._drain,
        )

    async def reconfigure(self, changes: dict[str, Any]) -> None:
        """Apply settings that were changed at run time."""
        self._settings.apply(changes)

    async def change_settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Change the settings of every ingress replica, through a handle to our own deployment. One
        that cannot be reached now, or starts later, reads the stored settings."""
        changes = await ask_head(keep_changes, asked)
        log.info("settings_changed", extra={"keys": _keys(asked)})
        await broadcast(self._ingresses, "reconfigure", changes)
        return changes

    async def fence(self, claims: Sequence[Claim]) -> Sequence[SessionElsewhere]:
        """Tell every ingress replica that these sessions go on at a new connection."""
        told = [tuple(claim) for claim in claims]
        answers = await broadcast(self._ingresses, "yield_sessions", told)
        return [answer for replica in answers for answer in replica]

    async def yield_sessions(
        self, claims: Sequence[tuple[str, int, float]]
    ) -> list[SessionElsewhere]:
        """End older connections to these sessions. Returns what is known here of each."""
        return [self._backend.fence.answer(Claim(*claim)) for claim in claims]

    async def _catch_up(self) -> None:
        """Apply settings that were changed while this replica could not be reached."""
        while True:
            await asyncio.sleep(CATCH_UP_S)
            with contextlib.suppress(HeadUnavailable):
                changes = await ask_head(stored_settings)
                if changes != self._settings.changes:
                    self._settings.apply(changes)

    async def _notice_the_end(self) -> None:
        """Drain as soon as Serve ends this replica; its destructor then waits for the drain."""
        is_shutting_down = shutdown_sign()
        while not is_shutting_down():  # noqa: ASYNC110  # Serve has only a flag
            await asyncio.sleep(POLL_S)
        self._drain.begin()

    async def drain(self) -> None:
        """The same for `voxray run`; returns when everything is closed."""
        self._drain.begin()
        await self._drain.ended.wait()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {SESSIONS: self._metrics.active_sessions}

    async def _ask_all(self, method: str) -> list[Any]:
        """The answers of every replica of every deployment, including this one."""
        answers = await asyncio.gather(*(broadcast(handle, method) for handle in self._deployments))
        return [answer for each in answers for answer in each]

    async def snapshots(self) -> list[Snapshot]:
        return await self._ask_all("snapshot") or [self._metrics.snapshot()]

    async def histories(self) -> list[list[Sample]]:
        return await broadcast(self._ingresses, "history") or [await self.history()]

    async def history(self) -> list[Sample]:
        return list(self._backend.samples)

    async def nodes(self) -> list[dict[str, Any]]:
        """Each machine once."""
        found = {usage["node"]: usage for usage in await self._ask_all("node")}
        return [found[name] for name in sorted(found)]

    async def model_states(self) -> list[dict[str, Any]]:
        return await model_states()

    async def deployments(self) -> dict[str, Any]:
        return await ask_head(serve_status, APP_NAME)

    async def _voices(self) -> list[Voice]:
        answers = await broadcast(self._speaker, "voices")
        return [Voice(*voice) for voice in answers[0]] if answers else []

    async def _generated(self) -> dict[str, dict[str, int]]:
        """Summed over the replicas."""
        return {
            "chat": _sum(await broadcast(self._chat, "made")),
            "speaker": _sum(await broadcast(self._speaker, "made")),
        }

    async def __del__(self) -> None:
        await super().__del__()
        for task in self._tasks:
            task.cancel()


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, value in count.items():
            total[name] = total.get(name, 0) + value
    return total


def warn_if_open(config: Config) -> None:
    """On a cluster, where nobody has checked the address, as `voxray run` does."""
    if not config.auth.required and LANES_HOST not in os.environ:
        log.warning("keys_not_needed")


def _lanes_host() -> str:
    """Where lanes listen: what `voxray run` says, else this node's address."""
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return os.environ.get(LANES_HOST, node)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def _keys(asked: dict[str, Any]) -> str:
    return ", ".join(f"{section}.{key}" for section, values in asked.items() for key in values)


def _start_tracing(deployment: str, replica: str) -> tracing.Recorder | None:
    """None unless the environment says where spans go."""
    if not otlp.is_configured(os.environ):
        return None
    recorder = otlp.OtlpRecorder({"voxray.deployment": deployment, "voxray.replica": replica})
    tracing.use(recorder)
    return recorder


def _record_request(kind: str, engine: str, request: Any, began: float) -> None:
    """A model replica's part of a request."""
    if parent := parsed(request.trace):
        fields: dict[str, tracing.Value] = {"voxray.engine": engine}
        trace = tracing.begin(parent)
        if trace and trace != parent:
            tracing.record(tracing.Span(kind, trace, parent, began, time.monotonic(), fields))


def _start_logging(config: LoggingConfig, deployment: str, replica: str) -> None:
    """Log to a file beside Serve's own of this replica, and where `voxray run` shows logs."""
    handlers: list[logging.Handler] = [
        RotatingFileHandler(
            folder / f"voxray_{deployment}_{replica}.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES
        )
        for folder in _log_folders()
    ]
    if pipe := os.environ.get(LOG_PIPE):
        handlers.append(PipeWriter(pipe))
    fixed = {"deployment": deployment, "replica": replica}
    start_logging(config.level, config.format, fixed, handlers)


def _log_folders() -> set[Path]:
    """Of Serve's log files; there is one."""
    handlers = logging.getLogger("ray.serve").handlers
    targets = [getattr(handler, "target", handler) for handler in handlers]
    return {Path(it.baseFilename).parent for it in targets if hasattr(it, "baseFilename")}
