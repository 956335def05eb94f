"""The server that a benchmark measures, as a person starts it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

VOXRAY = str(Path(sys.executable).parent / "voxray")
READY_IN_A_ROW = 5
"""While HAProxy is replaced, an old one may answer."""


@contextmanager
def voxray_server(config: Path, port: int) -> Iterator[tuple[int, str]]:
    """The pid of `voxray run`, and `host:port`; stopped with Ctrl-C at the end."""
    command = [VOXRAY, "run", "--config", str(config), "--port", str(port)]
    with server(command, f"http://127.0.0.1:{port}/v1/ready") as pid:
        yield pid, f"127.0.0.1:{port}"


@contextmanager
def server(
    command: Sequence[str], url: str, patience_s: float = float("inf"), out: int | None = None
) -> Iterator[int]:
    """The pid of a server that answers at `url`; its output goes to `out`. Raises `RuntimeError`
    if it ends or needs longer."""
    process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _await_ready(process, url, time.monotonic() + patience_s)
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], url: str, deadline: float) -> None:
    in_a_row = 0
    while in_a_row < READY_IN_A_ROW:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer")
        in_a_row = in_a_row + 1 if _answers(url) else 0
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
