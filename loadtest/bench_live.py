"""How many live sessions one machine holds: voxray with `sim` against a bare echo with webrtcvad.

Both servers meet the same generator in the same run, at the same numbers of sessions. The load
generator shares the machine; a run in which it was late itself is marked.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.generator import Plan
from loadtest.server import voxray_server
from loadtest.usage import Usage, spent, usage

ENGINE_MS = 50.0
"""The sim's own latency, as loadtest/bench.yaml states it."""

HERE = Path(__file__).parent
ECHO_PORT, VOXRAY_PORT = 8190, 8191
PATH = "/v1/transcribe/stream"
MAIN_PROCESSES = 5


@contextmanager
def echo_server() -> Iterator[tuple[int, str]]:
    process = subprocess.Popen([sys.executable, "-m", "loadtest.echo", str(ECHO_PORT)])
    time.sleep(2)
    try:
        yield process.pid, f"ws://127.0.0.1:{ECHO_PORT}/"
    finally:
        process.terminate()
        process.wait()


def measure(
    server: tuple[int, str], sessions: int, args: argparse.Namespace, echo: bool
) -> dict[str, Any]:
    """One load on one server: the generator's result, and what the server's processes used."""
    pid, url = server
    plan = Plan(url, sessions, args.chunk_ms, args.seconds, args.warm_up, echo)
    before = usage(pid)
    generator = subprocess.Popen(
        [sys.executable, "-m", "loadtest.generator", json.dumps(asdict(plan))],
        stdout=subprocess.PIPE,
    )
    out, _ = generator.communicate()
    result = json.loads(out)
    after = usage(pid)
    return {**result, **_cost(before, after, result, plan)}


def _cost(before: Usage, after: Usage, result: dict[str, Any], plan: Plan) -> dict[str, Any]:
    share = plan.seconds / (plan.seconds + plan.warm_up_s)
    chunks = max(1, round(result["chunks"] / share))
    by_process = {
        name: round(seconds * 1e6 / chunks, 1) for name, seconds in spent(before, after).items()
    }
    largest = sorted(by_process.items(), key=lambda item: -item[1])[:MAIN_PROCESSES]
    return {
        "cpu_us_a_chunk": round(sum(by_process.values()), 1),
        "cpu_us_by_process": dict(largest),
        "memory_kib_a_session": round((after.pss - before.pss) / 1024 / plan.sessions, 1),
    }


def line(name: str, row: dict[str, Any], engine_ms: float) -> str:
    return (
        f"{name:7} {row['sessions']:5} {row['held']:5} {max(0.0, row['p50_ms'] - engine_ms):8.1f} "
        f"{max(0.0, row['p99_ms'] - engine_ms):8.1f} {row['cpu_us_a_chunk']:7.1f} "
        f"{row['memory_kib_a_session']:8.1f} {'' if row['honest'] else ' GENERATOR LATE'}"
        f" {row['cpu_us_by_process']} {row['errors'] or ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[100, 300, 500, 1000])
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=6)
    parser.add_argument("--config", type=Path, default=HERE / "bench.yaml")
    parser.add_argument("--no-echo", action="store_true", help="voxray alone: no ratio")
    parser.add_argument("--with-key", action="store_true", help="the server asks for a key")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    if args.with_key:
        os.environ["VOXRAY_API_KEY"] = secrets.token_hex(32)  # of the server and the generator
    rows: dict[str, list[dict[str, Any]]] = {"echo": [], "voxray": []}
    print(
        f"{os.cpu_count()} cores, {args.chunk_ms} ms chunks, {args.seconds:g} s a row; "
        "latencies beyond the engine's",
        flush=True,
    )
    print("server   asked  held   p50 ms   p99 ms  us/chunk KiB/sess", flush=True)
    if not args.no_echo:
        with echo_server() as server:
            for sessions in args.sessions:
                rows["echo"].append(measure(server, sessions, args, True))
                print(line("echo", rows["echo"][-1], 0), flush=True)
    with voxray_server(args.config, VOXRAY_PORT) as (pid, address):
        server = (pid, f"ws://{address}{PATH}")
        for sessions in args.sessions:
            rows["voxray"].append(measure(server, sessions, args, False))
            print(line("voxray", rows["voxray"][-1], ENGINE_MS), flush=True)
    for echo, voxray in zip(rows["echo"], rows["voxray"], strict=False):
        ratio = voxray["cpu_us_a_chunk"] / echo["cpu_us_a_chunk"]
        print(f"ratio   {voxray['sessions']:5}: {ratio:.2f}x the echo's CPU a chunk")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
