"""The server that a benchmark measures: `voxray run` as a person starts it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx


@contextmanager
def voxray_server(config: Path, port: int) -> Iterator[tuple[int, str]]:
    """Its pid, and `host:port`; stopped with Ctrl-C at the end."""
    voxray = str(Path(sys.executable).parent / "voxray")
    process = subprocess.Popen([voxray, "run", "--config", str(config), "--port", str(port)])
    try:
        _await_ready(process, port)
        yield process.pid, f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v1/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError("voxray did not start")
