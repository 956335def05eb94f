"""The composition root: the only module that makes deployments. All Serve options stand here."""

import asyncio
import importlib
import logging
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from deployments.interfaces import Hypothesis, Judged, Speech, TranscriberEngine, Unjudged
from deployments.transcriber import Transcriber
from deployments.transcriber.pocketsphinx import PocketSphinx
from deployments.transcriber.twin import Twin
from deployments.vad import Vad
from serve_app.api import Models, create_app
from serve_app.clients import PrometheusExporter, RemoteFleet, broadcast
from serve_app.config import Config, Scale, TranscriberConfig, VadConfig
from serve_app.lane_wire import Address, LaneServer
from serve_app.metrics import Metrics, flat, merge, report
from serve_app.scaling import SESSIONS, SessionsPolicy

APP_NAME = "voxray"
EXPORT_EVERY_S = 5.0

LOOK_BACK_S = 10.1
"""Serve wants it longer than its metrics' interval, which is 10 s."""

UNBOUNDED = 100_000
"""Above any limit of ours: past its own bound Serve answers 500 and lets handshakes hang."""


def engine_class(name: str) -> type[TranscriberEngine]:
    """An engine by its name, or by `module:Class`. Raises `ValueError` for anything else."""
    known: dict[str, Any] = {"pocketsphinx": PocketSphinx, "twin": Twin}
    if name in known:
        found: type[TranscriberEngine] = known[name]
        return found
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(
            f"transcriber.engine {name!r} is not one of {', '.join(known)}, nor module:Class"
        )
    own: type[TranscriberEngine] = getattr(importlib.import_module(module), attribute)
    return own


def engine_args(name: str, config: TranscriberConfig) -> dict[str, Any]:
    own = {"pocketsphinx": config.pocketsphinx, "twin": config.twin}
    return own[name].model_dump() if name in own else dict(config.engine_args)


class ModelReplica:
    """A model as Serve holds it: reached by lanes, scaled by its sessions."""

    def __init__(self, model: Vad | Transcriber, item: type) -> None:
        _log_like_serve()
        self._model = model
        self._lanes = LaneServer(model, item)
        self._address: Address | None = None

    async def reconfigure(self, _: dict[str, Any]) -> None:
        """Serve awaits this before the replica is ready: a model that cannot load fails it."""
        if self._address is None:
            await self._model.start()
            self._address = await self._lanes.start(
                serve.get_replica_context().replica_id.unique_id, _own_address()
            )

    async def address(self) -> Address:
        assert self._address, "Serve awaits reconfigure before it sends anyone here"
        return self._address

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {SESSIONS: self._lanes.sessions()}

    async def __del__(self) -> None:
        self._lanes.stop()
        await self._model.stop()


class VadReplica(ModelReplica):
    def __init__(self) -> None:
        super().__init__(Vad(), Unjudged)


class TranscriberReplica(ModelReplica):
    def __init__(self, engine: str, config: TranscriberConfig) -> None:
        own = engine_class(engine)(**engine_args(engine, config))
        super().__init__(Transcriber(own), Speech)


@serve.ingress()
class Ingress:
    """Sockets, REST, sessions. Holds no model."""

    def __init__(
        self, config: Config, vad: DeploymentHandle[Any], transcriber: DeploymentHandle[Any]
    ) -> None:
        _log_like_serve()
        self._config = config
        self._metrics = Metrics()
        self._models = Models(
            vad=RemoteFleet(vad, Judged),
            transcriber=RemoteFleet(transcriber, Hypothesis),
            engine=config.transcriber_engine,
            languages=engine_class(config.transcriber_engine).languages,
            snapshots=self._snapshots,
        )
        self._exporting = asyncio.get_running_loop().create_task(self._export())

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self._models, self._config, self._metrics)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {SESSIONS: self._metrics.active_sessions}

    async def snapshot(self) -> dict[str, Any]:
        return self._metrics.snapshot()

    async def _snapshots(self) -> list[dict[str, Any]]:
        """Every ingress replica's, through a handle to ourselves."""
        me = serve.get_deployment_handle("Ingress", APP_NAME)
        return await broadcast(me, "snapshot") or [self._metrics.snapshot()]

    async def _export(self) -> None:
        exporter = PrometheusExporter()
        while True:
            exporter.export(flat(report(merge([self._metrics.snapshot()]))))
            await asyncio.sleep(EXPORT_EVERY_S)


def build(args: dict[str, Any]) -> Application:
    """The application that `serve run`, `serve deploy` and `voxray run` start from `args`."""
    config = Config.model_validate(args)
    engine_class(config.transcriber_engine)
    vad = _models(VadReplica, "Vad", config.vad.scale)
    transcriber = _models(TranscriberReplica, "Transcriber", config.transcriber.scale)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=UNBOUNDED,
        autoscaling_config=_autoscaling(config.ingress.scale),
        ray_actor_options=_resources(config.ingress.scale),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=20,
    )(Ingress)
    return ingress.bind(
        config,
        vad.bind(),
        transcriber.bind(config.transcriber_engine, config.transcriber),
    )


def _models(replica: type, name: str, scale: Scale) -> Any:
    """A deployment behind lanes."""
    return serve.deployment(
        name=name,
        user_config={},
        max_ongoing_requests=UNBOUNDED,
        autoscaling_config=_autoscaling(scale),
        ray_actor_options=_resources(scale),
        health_check_period_s=2,
        health_check_timeout_s=5,
        graceful_shutdown_timeout_s=5,
    )(replica)


def _autoscaling(scale: Scale) -> AutoscalingConfig:
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=SessionsPolicy,
        policy_kwargs={"sessions_per_replica": scale.sessions_per_replica},
    )
    return AutoscalingConfig(
        min_replicas=scale.min_replicas,
        max_replicas=scale.max_replicas,
        upscale_delay_s=scale.upscale_delay_s,
        downscale_delay_s=scale.downscale_delay_s,
        look_back_period_s=LOOK_BACK_S,
        policy=policy,
    )


def _resources(scale: Scale) -> dict[str, float]:
    return {"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus}


def _own_address() -> str:
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return host


def _log_like_serve() -> None:
    """Into the replica's own log file, beside what Serve writes there."""
    ours, serves = logging.getLogger("voxray"), logging.getLogger("ray.serve")
    ours.setLevel(logging.INFO)
    ours.handlers, ours.propagate = serves.handlers, False
