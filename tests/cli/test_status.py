"""What `voxray status` shows."""

import json

from rich.console import Console

from serve_app.cli.status import Status, _report
from tests.fakes import served
from tests.server import voxray

GIB = 1 << 30
GPU = {"name": "H100", "percent": 7, "memory_total_bytes": 80 * GIB, "memory_used_bytes": 20 * GIB}


def shown(**changes: object) -> str:
    status: Status = {
        "status": "healthy",
        "versions": {"voxray": "9.8.7", "ray": "2.1"},
        "engines": [
            {"kind": "vad", "engine": "sim", "model": None, "state": "warm", "percent": 100},
            {"kind": "chat", "engine": "vllm", "model": "m[1]", "state": "loading", "percent": 40},
        ],
        "deployments": {"Vad": {"status": "UPDATING", "replicas": {"RUNNING": 2, "STARTING": 1}}},
        "nodes": [
            {
                "node": "box",
                "cpu": {"count": 16, "percent": 12.5},
                "memory": {"total_bytes": 8 * GIB, "used_bytes": 2 * GIB, "percent": 25.0},
                "gpus": [GPU],
            }
        ],
        "jobs": {"waiting": 3, "running": 1},
        "active_sessions": 5,
        "active_connections": 6,
        "active_conversations": 2,
        "uptime_s": 12.3,
    }
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        for part in _report("http://here", status | changes):
            console.print(part)
    return captured.get()


def test_everything_is_named() -> None:
    text = shown()
    for part in (
        "http://here: healthy",
        "voxray 9.8.7, ray 2.1",
        "5 sessions, 2 conversations",
        "3 waiting, 1 running",
        "m[1]",
        "loading 40 %",
        "2 RUNNING, 1 STARTING",
        "2.0 of 8.0 GiB",
        "H100: 7 %, 20.0 of 80.0 GiB",
    ):
        assert part in text, text


def test_a_database_that_is_away_is_told() -> None:
    assert "the database does not answer" in shown(jobs={"waiting": None, "running": None})


def test_a_server_that_leaves_things_out_says_so() -> None:
    assert "quality level 3" in shown(quality_level=3)
    assert "quality level" not in shown(quality_level=0)


def test_only_the_server_is_asked() -> None:
    """It is not Ray's, so there are no deployments, whoever has a dashboard on this machine."""
    with served() as address:
        plain = voxray("status", "--server", f"http://{address}")
        as_json = voxray("status", "--json", "--server", f"http://{address}")
    assert plain.returncode == 0 and "healthy" in plain.stdout and "GiB" in plain.stdout
    assert "deployment" not in plain.stdout
    assert json.loads(as_json.stdout)["deployments"] == {}
