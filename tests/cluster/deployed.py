"""voxray on three machines, started with the commands of docs/deployment.md as they stand there."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import yaml

from tests import stores
from tests.cluster.nodes import Network, Node, nodes
from tests.readme import ROOT
from tests.stores import BUCKET, CREDENTIALS, S3, Postgres
from tests.waiting import wait_for

PAGE = ROOT / "docs/deployment.md"
CONFIG = "serve_config.yaml"
PORT = 8000
READY_S = 150
STEADY_S = 5.0
HEAD, EVERY, OTHER = "# on the head", "# on every node", "# on every other node"

LIVE = ("Ingress", "Vad", "Transcriber")
DEPLOYMENTS = (*LIVE, "Chat", "Speaker", "Diarizer", "Worker")


def steps() -> list[tuple[str, str]]:
    """Where each block of commands of the section on clusters runs, and the commands."""
    section = PAGE.read_text().split("\n## A cluster\n")[1].split("\n## ")[0]
    blocks = [block.split("```")[0] for block in section.split("```sh\n")[1:]]
    return [tuple(block.split("\n", 1)) for block in blocks]  # type: ignore[misc]


@dataclass
class Cluster:
    """Three machines; the first is the head. The stores run on this machine."""

    nodes: list[Node]
    postgres: Postgres
    s3: S3
    redis: str
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def address(self, node: Node) -> str:
        return f"{node.address}:{PORT}"

    def url(self, node: Node) -> str:
        return f"http://{self.address(node)}"

    def deploy(self) -> None:
        """Everything on the page, in its order."""
        self._write_config()
        for node in self.nodes:
            self.prepare(node)
        for where, commands in steps():
            self._run(self._those(where), self._filled(commands))
            if "get-auth-token" in commands:
                self._share_token()

    def _run(self, those: list[Node], commands: str) -> None:
        """On all of them at the same time."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.run(commands, READY_S), those))

    def rejoin(self, node: Node) -> None:
        """The same for one machine that has started again: its environment, and Ray."""
        node.boot()
        node.forget()
        self.prepare(node)
        for where, commands in steps():
            if node in self._those(where) and ("env)" in commands or "ray start" in commands):
                node.run(self._filled(commands))

    def prepare(self, node: Node) -> None:
        """What an operator sets before `ray start` so that all machines share the stores."""
        variables = {
            "VOXRAY_DATABASE_URL": self.postgres.url,
            "AWS_ENDPOINT_URL": self.s3.endpoint,
            **CREDENTIALS,
        }
        node.run("; ".join(f"export {name}={value}" for name, value in variables.items()))

    def redeploy(self, args: dict[str, Any]) -> None:
        """A rolling update to another configuration."""
        self.args = args
        self._write_config()
        for where, commands in steps():
            if where == HEAD and ("sed" in commands or "serve deploy" in commands):
                self.head.run(self._filled(commands))

    def _write_config(self) -> None:
        config = yaml.safe_load((ROOT / CONFIG).read_text())
        (application,) = config["applications"]
        application["args"] = {
            "admission": {"enabled": False},  # all machines share the processors of this one
            **self.args,
            "storage": {"objects": f"s3://{BUCKET}/cluster"},
        }
        (self.head.folder / CONFIG).write_text(yaml.safe_dump(config))
        for node in self.nodes[1:]:  # `voxray env` reads it
            shutil.copy(self.head.folder / CONFIG, node.folder)

    def _those(self, where: str) -> list[Node]:
        return {HEAD: [self.head], EVERY: self.nodes, OTHER: self.nodes[1:]}[where]

    def _filled(self, commands: str) -> str:
        here = {"HEAD_ADDRESS": self.head.address, "REDIS_ADDRESS:6379": self.redis}
        for name, value in here.items():
            commands = commands.replace(name, value)
        return commands

    def _share_token(self) -> None:
        token = self.head.folder / "home/.ray/auth_token"
        for node in self.nodes[1:]:
            (node.folder / "home/.ray").mkdir(exist_ok=True)
            shutil.copy(token, node.folder / "home/.ray")

    def replicas(self, deployment: str) -> list[int]:
        """How many each machine has."""
        return [len(node.pids(deployment)) for node in self.nodes]

    def ready(self, node: Node) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self.answer(node, "/v1/ready").status_code == 200
        return False

    def answer(self, node: Node, path: str) -> httpx.Response:
        return httpx.get(f"{self.url(node)}{path}", timeout=20)

    def get(self, node: Node, path: str) -> Any:
        return self.answer(node, path).json()

    def running(self) -> dict[str, int]:
        """How many replicas of each deployment Serve has in service; {} if it does not say."""
        return {name: it["replicas"].get("RUNNING", 0) for name, it in self._deployments().items()}

    def states(self) -> dict[str, str]:
        """What Serve says of each deployment, such as `HEALTHY`; {} if it says nothing."""
        return {name: it["status"] for name, it in self._deployments().items()}

    def _deployments(self) -> dict[str, Any]:
        with contextlib.suppress(httpx.HTTPError):
            found: dict[str, Any] = self.get(self.head, "/v1/status").get("deployments", {})
            return found
        return {}

    def await_steady(self, node: Node) -> None:
        """Until a machine's HAProxy is there to stay: Serve may replace it once more."""
        began = time.monotonic()

        def steady() -> bool:
            nonlocal began
            if not self.ready(node):
                began = time.monotonic()
            return time.monotonic() - began > STEADY_S

        wait_for(steady, READY_S, every_s=0.2)

    def await_complete(self) -> None:
        """Until each deployment has as many processes as it should have."""
        wanted = {name: self._least(name) for name in DEPLOYMENTS}

        def complete() -> bool:
            return all(sum(self.replicas(name)) == count for name, count in wanted.items())

        wait_for(complete, READY_S, every_s=0.2)

    def _least(self, deployment: str) -> int:
        section = {"Worker": "jobs"}.get(deployment, deployment.lower())
        least: int = self.args[section]["scale"]["min_replicas"]
        return least


@contextlib.contextmanager
def deployed(folder: Path, args: dict[str, Any]) -> Iterator[Cluster]:
    with nodes(3, folder) as machines, _stores(machines[0].network) as (postgres, s3, redis):
        cluster = Cluster(machines, postgres, s3, redis, args)
        cluster.deploy()
        yield cluster


@contextlib.contextmanager
def _stores(network: Network) -> Iterator[tuple[Postgres, S3, str]]:
    here = network.here
    with stores.postgres(here) as postgres, stores.s3(here) as s3, stores.redis(here) as redis:
        yield postgres, s3, redis
