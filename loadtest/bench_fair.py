"""What one tenant's flood does to another: voxray with a `sim` of limited speed, and three tenants.

Each has a third of the engine. `quiet` asks for half of its share, `normal` for all of it, `greedy`
for ten times its share, and has a long queue of jobs. The quiet tenant's live latency and its job
are measured alone, beside the normal tenant, beside the greedy one's jobs, and beside everything,
in turn. What the greedy tenant does to it is the difference to when there was only the normal one.
A job starts when a worker claims it. One window is the time that the engine takes for the longest,
30 s, when it has nothing else to do; a third of the engine takes three times as long.

The engine is slow so that it is what they contend for: see that the processors are not.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx2 as httpx
import psutil
import yaml

from loadtest.generator import Plan
from loadtest.server import voxray_server
from loadtest.speech import conversation, wav

PORT = 8195
URL = f"http://127.0.0.1:{PORT}"
CHUNK_MS = 100
WARM_UP_S = 3.0
WINDOW_S = 30.0
SPOKEN = 0.8
"""Of what a session sends; the engine gets no silence."""

LONG = 20
"""Conversations in one of the greedy tenant's recordings."""

Keys = Mapping[str, str]

SHARES = {"quiet": 0.5, "normal": 1.0, "greedy": 10.0}
"""How many times its share each asks for."""


class Phase(NamedTuple):
    name: str
    beside: tuple[str, ...] = ()
    """Tenants that speak."""
    jobs: int = 0
    """Of the greedy tenant."""


PHASES = (
    Phase("alone"),
    Phase("beside normal", ("normal",)),
    Phase("beside jobs", ("normal",), 10),
    Phase("beside all", ("normal", "greedy"), 10),
)


class Measured(NamedTuple):
    p50_ms: float
    p95_ms: float
    claimed_s: float
    """From handing the job in until a worker has it."""
    window_s: float
    """From asking for its only window until its words are there."""
    cpu: float
    """How much of all processors was used, in percent."""
    is_honest: bool


def configured(folder: Path, keys: Keys, speed: float) -> Path:
    entries = [{"key": key, "tenant": tenant} for tenant, key in keys.items()]
    key_file = folder / "keys.yaml"
    key_file.touch(0o600)
    key_file.write_text(yaml.safe_dump(entries))
    args = {
        "profile": "sim",
        "transcriber": {"sim": {"latency_ms": 50, "capacity": speed}},
        "limits": {"max_sessions": 2000},
        "admission": {"enabled": False, "handshakes_per_s": 100_000},
        "ingress": {"scale": {"min_replicas": 1, "max_replicas": 1}},
        "storage": {"directory": str(folder / "data")},
        "jobs": {"poll_s": 0.1, "cache_entries": 0},
        "auth": {"key_file": str(key_file)},
    }
    application = {"name": "voxray", "route_prefix": "/", "import_path": "serve_app.app:build"}
    config = folder / "fair.yaml"
    config.write_text(yaml.safe_dump({"applications": [{**application, "args": args}]}))
    return config


@contextmanager
def speaking(key: str, sessions: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A generator of live sessions with this key; ended at the end."""
    url = URL.replace("http", "ws") + "/v1/transcribe/stream"
    plan = Plan(url, sessions, CHUNK_MS, seconds, WARM_UP_S, False)
    command = [sys.executable, "-m", "loadtest.generator", json.dumps(asdict(plan))]
    environment = {**os.environ, "VOXRAY_API_KEY": key}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def client(key: str) -> httpx.Client:
    return httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def submit(http: httpx.Client, recording: bytes) -> str:
    file = {"file": ("speech.wav", recording)}
    answer = http.post("/v1/jobs", files=file, data={"diarize": "false"})
    return str(answer.raise_for_status().json()["id"])


@contextmanager
def queued(key: str, count: int, recording: bytes) -> Iterator[None]:
    """`count` jobs in the queue; cancelled at the end."""
    with client(key) as http:
        ids = [submit(http, recording) for _ in range(count)]
        try:
            yield
        finally:
            for id_ in ids:
                http.delete(f"/v1/jobs/{id_}")


def job(http: httpx.Client, recording: bytes) -> tuple[float, float]:
    """How long a job waited until it was claimed, and then for its window."""
    id_ = submit(http, recording)
    while (found := http.get(f"/v1/jobs/{id_}").json())["state"] != "completed":
        if found["state"] == "failed":
            raise RuntimeError(found["error"])
        time.sleep(0.1)
    result = http.get(f"/v1/jobs/{id_}/results").json()
    window_s: float = result["performance_metrics"]["windows_s"]
    return found["started_at"] - found["created_at"], window_s


def sessions_of(times: float, speed: float) -> int:
    """Sessions that speak `times` the share of one tenant."""
    return max(1, round(times * speed / len(SHARES) / SPOKEN))


def measure(phase: Phase, keys: Keys, args: argparse.Namespace) -> Measured:
    """The quiet tenant's, while the others do what they do in this phase."""
    once = conversation()
    with ExitStack() as all_:
        all_.enter_context(queued(keys["greedy"], phase.jobs, wav(once * LONG)))
        for tenant in phase.beside:
            sessions = sessions_of(SHARES[tenant], args.speed)
            all_.enter_context(speaking(keys[tenant], sessions, 10 * args.seconds))
        time.sleep(WARM_UP_S if phase.beside else 0)
        sessions = sessions_of(SHARES["quiet"], args.speed)
        quiet = all_.enter_context(speaking(keys["quiet"], sessions, args.seconds))
        http = all_.enter_context(client(keys["quiet"]))
        time.sleep(WARM_UP_S)
        psutil.cpu_percent()
        claimed_s, window_s = job(http, wav(once))
        live = json.loads(quiet.communicate()[0])
        cpu = psutil.cpu_percent()
    if live["errors"] or live["refused"]:
        raise RuntimeError(f"the quiet tenant's sessions failed: {live}")
    return Measured(live["p50_ms"], live["p95_ms"], claimed_s, window_s, cpu, live["honest"])


def line(name: str, it: Measured) -> str:
    return (
        f"{name:14} {it.p50_ms:6.1f} {it.p95_ms:7.1f} {it.claimed_s:10.2f} {it.window_s:9.2f}"
        f" {it.cpu:6.0f}"
        f"{'' if it.is_honest else '  GENERATOR LATE'}"
    )


def typical(rounds: list[Measured]) -> Measured:
    """The median of each."""
    return Measured(*map(median, zip(*rounds, strict=True)))


def verdict(name: str, of: str, before: Measured, beside: Measured, speed: float) -> str:
    longest_s = WINDOW_S / speed
    later_s = (beside.claimed_s + beside.window_s) - (before.claimed_s + before.window_s)
    return (
        f"{name}: live p95 {beside.p95_ms / before.p95_ms:.2f}x of {of}, "
        f"job started {(beside.claimed_s - before.claimed_s) / longest_s:+.2f} windows, "
        f"first words {later_s / longest_s:+.2f} windows"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, default=12, help="of the engine, x real time")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    keys = {tenant: secrets.token_hex(32) for tenant in SHARES}
    os.environ.pop("VOXRAY_API_KEY", None)  # the server's are in its file
    rows: dict[str, list[Measured]] = {phase.name: [] for phase in PHASES}
    shares = ", ".join(f"{name} {sessions_of(it, args.speed)}" for name, it in SHARES.items())
    print(f"{os.cpu_count()} cores, engine {args.speed:g}x real time; sessions: {shares}")
    print("of quiet       p50 ms  p95 ms  claimed s  window s  cpu %", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        voxray_server(configured(Path(folder), keys, args.speed), PORT),
    ):
        for _ in range(args.rounds):
            for phase in PHASES:
                rows[phase.name].append(measure(phase, keys, args))
                print(line(phase.name, rows[phase.name][-1]), flush=True)
    found = {phase.name: typical(rows[phase.name]) for phase in PHASES}
    for name in list(found)[1:]:
        for before in ("alone", "beside normal"):
            if before != name:
                print(verdict(name, before, found[before], found[name], args.speed))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
