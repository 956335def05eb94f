"""Machines on one machine: each has processes, a network address, a host name, a home and temporary
files of its own (Linux namespaces), and a bridge connects them; this machine has the address 254 there.

A machine's first process reads a pipe that this process holds. When that closes, for whatever
reason, the kernel kills all processes of the machine and takes its network away; what may be left
of a run that was killed is a bridge, which the next run removes.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.stores import absent

ROOT = Path(__file__).parent.parent.parent
PREFIX = "vx"
"""Of the bridge's name; the rest is the process that made it."""

TOOLS = ("ip", "unshare", "nsenter")

OWN = {"/tmp/ray": "ray", "/tmp/vx": "tmp"}
"""Directories that are another one on each machine. The names are short: Unix limits those of
sockets to 107 bytes. The rest of /tmp may have the checkout."""

BOOT = """
hostname {name} && ip link set lo up && mount -t tmpfs none /dev/shm && {mounts} && echo up || exit 1
while read -r; do :; done
"""
"""The first process. Bash also collects the processes that others leave behind."""


class Failed(Exception):
    """A command on a machine failed; with what it printed."""


@dataclass
class Network:
    """The bridge, and the part of the addresses that all machines share."""

    bridge: str
    subnet: str

    @property
    def here(self) -> str:
        """This machine, as the others reach it."""
        return f"{self.subnet}.254"


class Node:
    """One machine. `run` is its shell; exported variables stay from one command to the next."""

    def __init__(self, network: Network, number: int, folder: Path) -> None:
        self.network = network
        self.number = number
        self.name = f"node{number}"
        self.address = f"{network.subnet}.{number}"
        self.folder = folder
        self._port = f"{network.bridge}-{number}"
        self._exported = folder / "exported.sh"
        self._first: subprocess.Popen[str] | None = None
        for name in ("home", *OWN.values()):
            (folder / name).mkdir(parents=True)
        self.forget()

    def forget(self) -> None:
        """A new shell, with nothing but the environment that every command needs."""
        base = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": "/tmp/vx",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
        }
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in base.items())
        self._exported.write_text("".join(lines))

    def boot(self) -> None:
        apart = ("--net", "--pid", "--fork", "--mount", "--uts", "--mount-proc")
        mounts = (f"mount --bind {self.folder / name} {at}" for at, name in OWN.items())
        first = BOOT.format(name=self.name, mounts=" && ".join(mounts))
        with (self.folder / "boot.txt").open("w") as complaints:
            self._first = subprocess.Popen(
                ["unshare", *apart, "bash", "-c", first],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        assert self._first.stdout and self._first.stdout.readline() == "up\n", self.name
        self._connect(self.first.pid)

    def _connect(self, pid: int) -> None:
        bridge, there = self.network.bridge, f"{self._port}i"
        ip("link", "add", self._port, "type", "veth", "peer", "name", there)
        ip("link", "set", there, "netns", str(pid))
        ip("link", "set", self._port, "master", bridge, "up")
        self.run(
            f"ip address add {self.address}/24 dev {there} && ip link set {there} up && "
            f"ip route add default via {self.network.here}"  # else Ray finds no address
        )

    @property
    def first(self) -> psutil.Process:
        """The first process, as this machine sees it."""
        assert self._first
        return psutil.Process(self._first.pid).children()[0]

    def run(self, script: str, timeout: float = 60) -> str:
        """What a shell script prints. Raises `Failed`."""
        remembered = (
            f"set -e; cd {self.folder}; . {self._exported}; {script}\nexport -p > {self._exported}"
        )
        output = self.folder / "output.txt"  # not a pipe: what stays running would keep it open
        with output.open("w") as to:
            done = subprocess.run(
                [*self._enter(), "env", "-i", "bash", "-c", remembered],
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=to,
                timeout=timeout,
            )
        if done.returncode:
            raise Failed(f"{self.name}: {script}\n{output.read_text()}")
        return output.read_text()

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.first.pid), "--net", "--pid", "--mount", "--uts"]

    def kill(self) -> None:
        """As if its power failed: every process gets SIGKILL, and its address is gone."""
        if self._first and self._first.poll() is None:
            with contextlib.suppress(IndexError, psutil.Error):
                self.first.kill()
            self._first.communicate(timeout=30)
        with contextlib.suppress(Failed):  # it may be gone, or stay while the last packets are sent
            ip("link", "del", self._port)

    def cut(self, off: bool) -> None:
        """Take its network cable out, or put it back."""
        ip("link", "set", self._port, "down" if off else "up")

    def pids(self, deployment: str) -> list[int]:
        """The replicas of a deployment on this machine, as this machine's system knows them."""
        if self._first is None or self._first.poll() is not None:
            return []
        title = f"ray::ServeReplica:voxray:{deployment}"
        found = []
        for process in self.first.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process.pid)
        return found


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"ip {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def require_namespaces() -> None:
    """Skip the test where there can be no machines; in CI, fail."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    reason = f"needs {', '.join(missing)} (iproute2, util-linux)" if missing else ""
    if os.getuid() != 0:
        reason = "needs root, for network namespaces"
    elif not missing and subprocess.run(["unshare", "--net", "--pid", "--fork", "true"]).returncode:
        reason = "needs network namespaces, which are not allowed here"
    if reason:
        absent(reason)


@contextlib.contextmanager
def nodes(count: int, folder: Path) -> Iterator[list[Node]]:
    """Machines that run nothing yet, on a network of their own."""
    for at in OWN:
        Path(at).mkdir(exist_ok=True)
    with _network() as network, contextlib.ExitStack() as stack:
        made = [Node(network, number, folder / f"node{number}") for number in range(1, count + 1)]
        for node in made:
            stack.callback(node.kill)
            node.boot()
        yield made


@contextlib.contextmanager
def _network() -> Iterator[Network]:
    _remove_left_bridges()
    network = Network(f"{PREFIX}{os.getpid()}", _free_subnet())
    ip("link", "add", network.bridge, "type", "bridge")
    try:
        ip("address", "add", f"{network.here}/24", "dev", network.bridge)
        ip("link", "set", network.bridge, "up")
        yield network
    finally:
        ip("link", "del", network.bridge)


def _remove_left_bridges() -> None:
    """Of runs that were killed."""
    for link in Path("/sys/class/net").glob(f"{PREFIX}[0-9]*"):
        pid = link.name.removeprefix(PREFIX)
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            ip("link", "del", link.name)


def _free_subnet() -> str:
    """One of those reserved for tests of network devices."""
    taken = ip("-4", "address", "show")
    return next(
        subnet for subnet in (f"198.18.{n}" for n in range(77, 256)) if f" {subnet}." not in taken
    )
