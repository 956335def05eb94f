"""The files for `ray up` and for Kubernetes, against Ray's own validators where it has them.

KubeRay's definition of a RayService is not installable, so its own keys are checked by name.
"""

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from serve_app.cluster.environment import REPLICA_S, serve_environment
from serve_app.config import Config
from serve_app.config.sources import configured, with_environment

ROOT = Path(__file__).parent.parent.parent
SERVICE_KEYS = {
    "excludeHeadPodFromServeSvc",
    "serveConfigV2",
    "rayClusterConfig",
    "rayClusterDeletionDelaySeconds",
}
CLUSTER_KEYS = {
    *("rayVersion", "authOptions", "gcsFaultToleranceOptions", "enableInTreeAutoscaling"),
    *("autoscalerOptions", "headGroupSpec", "workerGroupSpecs"),
}
WORKER_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/cluster.aws.yaml"])
def test_ray_accepts_the_cluster(name: str) -> None:
    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    kinds = config["available_node_types"]
    assert sum(kind.get("min_workers", 0) for kind in kinds.values()) <= config["max_workers"]
    started = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert started.count("voxray env") == 3 and "--dashboard-host=127.0.0.1" in started


def test_ray_refuses_an_unknown_key() -> None:
    config = prepare_config(yaml.safe_load((ROOT / "deploy/cluster.aws.yaml").read_text()))
    with pytest.raises(Exception, match="max_worker_count"):
        validate_config(config | {"max_worker_count": 3})


def test_on_aws_no_loss_of_one_machine_takes_all_and_gpus_can_go() -> None:
    kinds = yaml.safe_load((ROOT / "deploy/cluster.aws.yaml").read_text())["available_node_types"]
    assert kinds["cpu"]["min_workers"] >= 2 and kinds["gpu"]["min_workers"] == 0
    assert all(kinds[it]["max_workers"] > kinds[it]["min_workers"] for it in ("cpu", "gpu"))


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """By kind and name."""
    found = yaml.safe_load_all((ROOT / "deploy/kubernetes/rayservice.yaml").read_text())
    return {f"{it['kind']}/{it['metadata']['name']}": it for it in found}


@pytest.fixture(scope="module")
def service(manifests: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifests["RayService/voxray"]["spec"]
    return spec


@pytest.fixture(scope="module")
def worker(service: dict[str, Any]) -> dict[str, Any]:
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    pod: dict[str, Any] = group["template"]
    return pod


def test_the_service_has_only_keys_that_kuberay_knows(service: dict[str, Any]) -> None:
    assert service.keys() == SERVICE_KEYS
    assert service["rayClusterConfig"].keys() == CLUSTER_KEYS
    for group in service["rayClusterConfig"]["workerGroupSpecs"]:
        assert group.keys() == WORKER_KEYS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert service["rayClusterConfig"]["rayVersion"] == ray.__version__


@pytest.fixture(scope="module")
def config(service: dict[str, Any], manifests: dict[str, Any]) -> Config:
    """What the application gets: the arguments, and the environment of its pods."""
    serve = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    environment = manifests["Secret/voxray-settings"]["stringData"]
    args = serve.applications[0].args
    return configured(with_environment(args, environment), environment)


def test_serve_and_voxray_accept_its_configuration(
    config: Config, manifests: dict[str, Any]
) -> None:
    for scale in (config.ingress.scale, config.vad.scale, config.transcriber.scale):
        assert 0 < scale.max_replicas_per_node < scale.min_replicas
    environment = manifests["Secret/voxray-settings"]["stringData"]
    assert environment[config.storage.database_variable].startswith("postgresql")
    assert "://" in config.storage.objects_url


def test_each_time_to_stop_is_inside_the_next(
    config: Config, service: dict[str, Any], worker: dict[str, Any]
) -> None:
    environment = serve_environment(config)
    (container,) = worker["spec"]["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = worker["spec"]["terminationGracePeriodSeconds"]
    least = float(environment["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])
    node = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert least < config.drain.timeout_s < config.longest_drain_s + REPLICA_S < node
    assert node + pause < grace <= service["rayClusterDeletionDelaySeconds"]


def test_what_is_named_is_there(manifests: dict[str, Any], service: dict[str, Any]) -> None:
    redis = service["rayClusterConfig"]["gcsFaultToleranceOptions"]
    name, port = redis["redisAddress"].split(":")
    assert manifests[f"Service/{name}"]["spec"]["ports"][0]["port"] == int(port)
    reference = redis["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert reference["key"] in manifests[f"Secret/{reference['name']}"]["stringData"]
    served = manifests[f"StatefulSet/{name}"]["spec"]["template"]["metadata"]["labels"]
    assert manifests[f"Service/{name}"]["spec"]["selector"].items() <= served.items()


def test_pods_that_serve_are_ready_when_they_can_and_are_stopped_one_at_a_time(
    manifests: dict[str, Any], worker: dict[str, Any]
) -> None:
    (container,) = worker["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8000}
    budget = manifests["PodDisruptionBudget/voxray"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= worker["metadata"]["labels"].items()
