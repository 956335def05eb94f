"""The smallest Serve application with as many replicas as voxray: what Ray alone takes to start.

Like voxray, it uses HAProxy mode, its own head, and one replica of each deployment.
"""

import logging
import os
import sys
from functools import partial
from typing import Any

from serve_app.cli.supervisor import hold_signals, ignore_signals, supervise
from serve_app.cluster.environment import serve_environment
from serve_app.config import Config

MODELS = 6
"""Deployments behind the ingress: Vad, Transcriber, Chat, Speaker, Diarizer, Worker."""


class Model:
    def __call__(self) -> str:
        return "hello"


class Ingress:
    def __init__(self, *models: object) -> None:
        self.models = models

    def __call__(self, request: object) -> str:
        return "hello"


def _deployed(replica: type, name: str) -> Any:
    from ray import serve

    return serve.deployment(name=name, ray_actor_options={"num_cpus": 0.1})(replica)


def serve_hello(port: int, stop: int) -> int:
    """Serve until the other end of the pipe `stop` is closed."""
    import ray
    from ray import serve

    ray.init(
        include_dashboard=True,
        _node_ip_address="127.0.0.1",
        object_store_memory=200_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ignore_signals()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    models = [_deployed(Model, f"Model{it}").bind() for it in range(MODELS)]
    serve.run(_deployed(Ingress, "Ingress").bind(*models), name="hello", route_prefix="/")
    os.read(stop, 1)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    hold_signals()
    os.environ.update(serve_environment(Config(), any_ports=True))
    sys.exit(supervise(partial(serve_hello, int(sys.argv[1]))))
