"""The commands of the docs, run as they stand there against a server on another port."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.server import BIN, Server

ROOT = Path(__file__).parent.parent
RUN_ELSEWHERE = ("make ", ". .venv/")
"""By CI itself: `make check test` is what runs this."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def commands(page: str) -> list[str]:
    """Every shell command of a page, a line each."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(RUN_ELSEWHERE)]


def run_shell(command: str, server: Server, folder: Path, expected: tuple[int, ...] = (0,)) -> str:
    """In a folder with a `speech.wav`, against `server`."""
    here = command.replace("127.0.0.1:8000", server.address)
    here = here.replace("loadtest/", f"{ROOT}/loadtest/").replace("-t 20s", "-t 12s")
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "VOXRAY_SERVER": server.url, "HOME": str(Path.home())}
    shutil.copy(ROOT / "serve_config.yaml", folder)
    done = subprocess.run(
        ["bash", "-ec", here],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in expected, (here, done.stdout, done.stderr)
    return done.stdout


def run_python(page: str, server: Server, folder: Path) -> str:
    """Every Python program of a page; what they print."""
    return "".join(
        subprocess.run(
            [sys.executable, "-c", code.replace("127.0.0.1:8000", server.address)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=90,
        ).stdout
        for code in blocks(page, "python")
    )


def run_javascript(server: Server, folder: Path) -> None:
    """The page's program ends well, in a folder with `voxray.mjs`; it is not run where there is no
    Node, but in CI there is."""
    node = shutil.which("node")
    if not node and not os.environ.get("CI"):
        return
    assert node, "Node is not installed"
    (code,) = blocks("docs/clients.md", "js")
    program = folder / "program.mjs"
    program.write_text(code.replace("127.0.0.1:8000", server.address))
    flags = ["--experimental-websocket", "--no-warnings"]
    done = subprocess.run(
        [node, *flags, program], cwd=folder, timeout=60, check=True, capture_output=True, text=True
    )
    assert "final " in done.stdout
