"""`voxray run` as a person starts it: a real Ray cluster, HAProxy and all.

`with running(folder, args) as server` is ready and is stopped at the end; starting one takes
about ten seconds, so that the tests of a module share one. `voxray(...)` runs a command to its end.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import yaml

from tests.ports import free_port
from tests.waiting import wait_for

BIN = Path(sys.executable).parent
READY_S = 120


@dataclass
class Server:
    """A running server: its main process, its port on this machine, and where its output goes."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    address: str = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"

    def get(self, path: str) -> Any:
        """The JSON it answers with."""
        return httpx.get(f"{self.url}{path}", timeout=20).json()

    def pids(self, deployment: str) -> list[int]:
        """The replicas of a deployment, as the system knows them."""
        title = f"ray::ServeReplica:voxray:{deployment}"
        ours = psutil.Process(self.process.pid).children(recursive=True)
        found = []
        for process in ours:
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process.pid)
        return found

    def descendants(self) -> list[psutil.Process]:
        """All of its processes but the first."""
        return psutil.Process(self.process.pid).children(recursive=True)


def children(module: str) -> list[psutil.Process]:
    """This process's own that run something of that name; others are servers of other tests."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(module in part for part in process.cmdline()):
                found.append(process)
    return found


def voxray(*args: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [str(BIN / "voxray"), *args], capture_output=True, text=True, timeout=timeout
    )


@contextlib.contextmanager
def running(
    folder: Path, args: dict[str, Any], ready_s: float = READY_S, options: Sequence[str] = ()
) -> Iterator[Server]:
    """A server with these `args`, stopped with Ctrl-C at the end."""
    with starting(folder, args, options) as server:
        await_ready(server, ready_s)
        yield server


@contextlib.contextmanager
def starting(folder: Path, args: dict[str, Any], options: Sequence[str] = ()) -> Iterator[Server]:
    """The same, not ready yet."""
    port = free_port()
    args = {
        "storage": {"directory": str(folder / "data")},
        "admission": {"enabled": False},  # the machine of the tests may be busy with others
        **args,
    }
    config = folder / "serve_config.yaml"
    application = {
        "name": "voxray",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": args,
    }
    config.write_text(
        yaml.safe_dump(
            {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}
        )
    )
    log = folder / "run.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(BIN / "voxray"), "run", "--config", str(config), *options], stderr=out, stdout=out
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        stop(server)


def await_ready(server: Server, ready_s: float = READY_S) -> None:
    """Until it says that it is ready; fails if it ends or takes longer."""

    def ready() -> bool:
        assert server.process.poll() is None, server.log.read_text()
        return "is ready at" in server.log.read_text()

    wait_for(ready, ready_s)


def stop(server: Server, number: signal.Signals = signal.SIGINT) -> None:
    if server.process.poll() is None:
        server.process.send_signal(number)
    server.process.wait(60)
