"""How `voxray run` starts and ends: a real Ray cluster, told to stop at any time."""

import contextlib
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

from tests.api.sockets.test_live_socket import PATH
from tests.server import Server, await_ready, starting, stop
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SIM = {"profile": "sim"}


def await_process(server: Server, name: str) -> None:
    """Until the server has a process of that name."""

    def there() -> bool:
        assert server.process.poll() is None, server.log.read_text()
        return any(name in word for process in server.descendants() for word in words(process))

    wait_for(there, 60)


def words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def assert_ends(server: Server, number: signal.Signals) -> None:
    """In order: exit code 0, no stack dump, no process left."""
    ours = server.descendants()
    stop(server, number)
    said = server.log.read_text()
    assert server.process.returncode == 0, said
    assert "***" not in said and "Traceback" not in said and "stopping" in said
    assert not [process for process in ours if process.is_running()]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGINT, "gcs_server"),
        (signal.SIGTERM, "raylet"),
        (signal.SIGTERM, "ray::ServeController"),
    ],
)
def test_a_signal_ends_it_while_it_starts(
    tmp_path: Path, number: signal.Signals, name: str
) -> None:
    with starting(tmp_path, SIM) as server:
        await_process(server, name)
        assert_ends(server, number)


def handshake(server: Server) -> str:
    """The head of the answer; "" when nobody listens."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: {server.address}\r\nConnection: Upgrade\r\n"
    head += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(head.encode())
        return s.recv(4096).decode("latin-1")
    return ""


def test_ready_means_that_the_next_socket_works(tmp_path: Path) -> None:
    """From the start on, every handshake is refused as not yet, then accepted; and SIGTERM ends."""
    with starting(tmp_path, SIM) as server:
        heads: list[str] = []
        ready = threading.Event()

        def knock() -> None:
            while not ready.wait(0.01):
                heads.append(handshake(server))

        knocking = threading.Thread(target=knock)
        knocking.start()
        try:
            await_ready(server)
            first = [handshake(server) for _ in range(20)]
        finally:
            ready.set()
            knocking.join()
        assert all(head.startswith("HTTP/1.1 101") for head in first)
        refused = {head for head in heads if head and not head.startswith("HTTP/1.1 101")}
        assert refused and all("503" in head and "etry-" in head for head in refused), refused
        await_logged(server, "/v1/ready")
        assert_ends(server, signal.SIGTERM)


def replica_log(server: Server, deployment: str) -> Path:
    """Where a replica logs to."""
    pid = server.pids(deployment)[0]
    (path,) = {
        Path(file.path)
        for file in psutil.Process(pid).open_files()
        if "/logs/serve/replica_" in file.path
    }
    return path


def await_logged(server: Server, what: str) -> None:
    log = replica_log(server, "Ingress")
    wait_for(lambda: what in log.read_text(), 2)
