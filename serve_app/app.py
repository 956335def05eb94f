"""The composition root: the only module that creates deployments. All Serve options are here."""

import os
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from serve_app.cluster.environment import REPLICA_S
from serve_app.cluster.scaling import JobsPolicy, SessionsPolicy
from serve_app.config import Config, Scale
from serve_app.config.sources import configured, with_environment
from serve_app.engines import engine_class
from serve_app.models import weights
from serve_app.replicas import LANES_DRAIN_S, Ingress, ModelReplica, VadReplica, WorkerReplica

LOOK_BACK_S = 10.1
"""Serve requires more than the interval of its metrics, which is 10 s."""


UNBOUNDED = 100_000
"""Above every limit of ours, because at its own Serve answers 500 and handshakes hang."""


def build(args: dict[str, Any]) -> Application:
    """The application that `serve run` and `serve deploy` start from `args`.

    Serve calls this on one node. Settings in that node's environment override `args`, and every
    replica gets the result. Raises `WrongSetting`.
    """
    tree = with_environment(args, os.environ)
    return application(configured(tree, os.environ))


def application(config: Config) -> Application:
    """The application that `voxray run` starts, too."""
    config = config.model_copy(update={"auth": config.auth.decided})
    for kind, (name, _) in config.engines.items():
        engine_class(kind, name)
    weights.check_plan(config)
    vad = _models(VadReplica, "Vad", config.vad.scale)
    models = {
        kind: _models(ModelReplica, kind.capitalize(), leaf.scale).bind(kind, config)
        for kind, (_, leaf) in config.engines.items()
    }
    worker = serve.deployment(
        name="Worker",
        max_ongoing_requests=UNBOUNDED,
        autoscaling_config=_autoscaling(config.jobs.scale, JobsPolicy),
        **_place(config.jobs.scale),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=10,
    )(WorkerReplica)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=UNBOUNDED,
        autoscaling_config=_autoscaling(config.ingress.scale),
        **_place(config.ingress.scale),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=config.longest_drain_s + REPLICA_S,
        max_surge_percent=100,  # in an update the new ones are ready before the old ones drain
    )(Ingress)
    return ingress.bind(
        config,
        vad.bind(config.logging),
        models["transcriber"],
        models["chat"],
        models["speaker"],
        models["diarizer"],
        worker.bind(config, models["transcriber"], models["diarizer"]),
    )


def _models(replica: type, name: str, scale: Scale) -> Any:
    """A deployment behind lanes."""
    return serve.deployment(
        name=name,
        user_config={},
        max_ongoing_requests=UNBOUNDED,
        autoscaling_config=_autoscaling(scale),
        **_place(scale),
        health_check_period_s=2,
        health_check_timeout_s=5,
        graceful_shutdown_timeout_s=LANES_DRAIN_S + REPLICA_S,
    )(replica)


def _autoscaling(scale: Scale, function: type = SessionsPolicy) -> AutoscalingConfig:
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=function,
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


def _place(scale: Scale) -> dict[str, Any]:
    """Serve spreads replicas over the nodes as well as it can; the bound is strict."""
    return {
        "ray_actor_options": {"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus},
        "max_replicas_per_node": scale.max_replicas_per_node or None,
    }
