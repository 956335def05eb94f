"""`voxray models download`, from a hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = "hexgrad/Kokoro-82M"
COMMIT = "0" * 39 + "1"
FILES = {
    "config.json": b'{"vocab": {}}',
    "kokoro-v1_0.pth": bytes(range(256)) * 4096,
    "voices/af_heart.pt": b"voice" * 1000,
    "samples/HEARME.wav": b"not asked for",
}


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as a download of one repository asks for."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.asked.append(self.path)
        if self.path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in FILES]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in FILES.items()
            ]
            about = {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}
            self.answer(json.dumps(tree if "/tree/" in self.path else about).encode(), body)
            return
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        if name in FILES:
            self.answer(FILES[name], body)
        else:
            self.send_error(404)

    def answer(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_weights_are_fetched_checked_and_then_found_without_the_hub(
    hub: str, tmp_path: Path
) -> None:
    config = tmp_path / "serve_config.yaml"
    args = {
        "profile": "cpu",
        "models": {"directory": str(tmp_path / "models")},
        "speaker": {"engine": "kokoro"},
    }
    config.write_text(yaml.safe_dump({"applications": [{"name": "voxray", "args": args}]}))
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    environment["HF_HOME"] = str(tmp_path / "home")

    def models(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        voxray = Path(sys.executable).parent / "voxray"
        return subprocess.run(
            [str(voxray), "models", command, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment | more,
        )

    assert models("check").returncode == 1, "nothing is there yet"
    fetched = models("download")
    assert fetched.returncode == 0, fetched.stderr
    folder = tmp_path / "models" / REPOSITORY
    got = {name: (folder / name).read_bytes() for name in FILES if "samples" not in name}
    assert got == {name: data for name, data in FILES.items() if "samples" not in name}
    assert not (folder / "samples").exists(), "only what the engine reads"
    whole = models("check", HF_ENDPOINT="http://127.0.0.1:1")
    assert whole.returncode == 0 and "intact" in whole.stderr + whole.stdout
    (folder / "kokoro-v1_0.pth").write_bytes(FILES["kokoro-v1_0.pth"][:-1] + b"x")
    assert "SHA-256" in " ".join(models("check").stderr.split())
    again = models("download")
    assert again.returncode == 0, again.stderr
