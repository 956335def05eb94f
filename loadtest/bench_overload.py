"""What happens to everybody when twice the sessions that fit want in.

voxray with `sim` on this machine, which the load generator shares. Twice `--fits` sessions ask, at
once or within `--ramp` seconds; then the same with a busy loop on one core for ten seconds in the
middle. Last, half of what fits, with a flood of recordings for ten seconds. Latencies are p99,
beyond the engine's own 50 ms; before, during and after those ten seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import yaml

from loadtest.crowd import CrowdPlan
from loadtest.server import voxray_server
from loadtest.usage import name

HERE = Path(__file__).parent
PORT = 8193
URL = f"ws://127.0.0.1:{PORT}/v1/transcribe/stream"
MEMORY_EVERY_S = 0.5
AFTER_S = 10.0
"""How long memory has to return after a run."""

BESIDE_S = 10.0
"""How long a core is taken, or recordings come."""

RECORDINGS_AT_ONCE = 16


class Scenario(NamedTuple):
    name: str
    ramp_s: float = 0.0
    beside: Literal["", "core", "recordings"] = ""
    share: float = 1.0
    """Of all that ask."""


class Memory:
    """Of the ingress replica, in MiB: before, at most, and after."""

    def __init__(self, server: int) -> None:
        tree = psutil.Process(server).children(recursive=True)
        self._ingress = next(process for process in tree if name(process) == "Ingress")
        self.before = self.most = self.after = self._now()
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.join()
        time.sleep(AFTER_S)
        self.after = self._now()

    def _watch(self) -> None:
        while not self._over.wait(MEMORY_EVERY_S):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        return int(self._ingress.memory_info().rss) >> 20


def beside(what: str, after_s: float) -> list[str]:
    """The command of what happens for ten seconds from then on."""
    if what == "recordings":
        url = f"http://127.0.0.1:{PORT}/v1/audio/transcriptions"
        return ["-m", "loadtest.flood", url, *map(str, (after_s, BESIDE_S, RECORDINGS_AT_ONCE))]
    spin = f"import time; time.sleep({after_s}); end = time.monotonic() + {BESIDE_S}\n"
    return ["-c", spin + "while time.monotonic() < end: pass"]


def run(scenario: Scenario, server: int, args: argparse.Namespace) -> dict[str, Any]:
    begin = args.warm_up + scenario.ramp_s + args.seconds / 2
    plan = CrowdPlan(
        url=URL,
        sessions=round(args.fits * args.times * scenario.share),
        chunk_ms=args.chunk_ms,
        seconds=args.seconds + scenario.ramp_s + (BESIDE_S if scenario.beside else 0),
        warm_up_s=args.warm_up,
        echo=False,
        ramp_s=scenario.ramp_s,
        phases_s=(begin, begin + BESIDE_S) if scenario.beside else (),
    )
    with Memory(server) as memory:
        crowd = started("-m", "loadtest.crowd", json.dumps(asdict(plan)))
        also = started(*beside(scenario.beside, begin)) if scenario.beside else None
        out, _ = crowd.communicate()
        told = also.communicate()[0].decode().strip() if also else ""
    rows = json.loads(out)
    return {
        **rows,
        "memory_mib": (memory.before, memory.most, memory.after),
        "recordings": json.loads(told) if told else {},
    }


def started(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE)


HEAD = (
    f"{'load':18} {'asked':>6} {'in':>5} {'refused':>8} {'failed':>6}  "
    f"{'refused in ms (p50, p99, most)':30}  {'p99 ms beyond the engine':27}  "
    f"{'dropped':7}  {'level':5}  {'MiB before, most, after':23}  normal after"
)


def line(scenario: Scenario, row: dict[str, Any]) -> str:
    refusals = ", ".join(f"{row[f'refusal_{it}_ms']:.0f}" for it in ("p50", "p99", "max"))
    phases = " | ".join(f"{p99:.0f}" for p99 in row["p99_ms"])
    memory = ", ".join(map(str, row["memory_mib"]))
    normal = "" if row["normal_after_s"] is None else f"{row['normal_after_s']:.1f} s"
    return (
        f"{scenario.name:18} {row['asked']:6} {row['admitted']:5} {row['refused']:8} "
        f"{row['failed']:6}  {refusals:30}  {phases:27}  {row['dropped']:7}  "
        f"{row['highest_level']:5}  {memory:23}  {normal:12}"
        f"{'' if row['honest'] else ' GENERATOR LATE'} {row['errors'] or ''}"
        f"{row['recordings'] or ''}"
    )


def config_of(args: argparse.Namespace, folder: Path) -> Path:
    """The server's, with admission as asked for."""
    tree = yaml.safe_load((HERE / "overload.yaml").read_text())
    tree["applications"][0]["args"]["admission"] = {"enabled": not args.no_admission}
    file = folder / "overload.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=500, help="what bench_live found to fit")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=3)
    parser.add_argument("--ramp", type=float, default=10)
    parser.add_argument("--only", nargs="*", help="begin of the names of the loads to run")
    parser.add_argument("--no-admission", action="store_true", help="to compare: let everybody in")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    scenarios = [
        Scenario("at once"),
        Scenario("ramp", args.ramp),
        Scenario("core taken", beside="core"),
        Scenario("ramp, core taken", args.ramp, "core"),
        Scenario("recordings", args.ramp, "recordings", share=0.5 / args.times),
    ]
    chosen = tuple(args.only or [""])
    rows = {}
    print(f"{os.cpu_count()} cores, {args.chunk_ms} ms chunks", flush=True)
    print(HEAD, flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        voxray_server(config_of(args, Path(folder)), PORT) as (pid, _),
    ):
        for scenario in scenarios:
            if scenario.name.startswith(chosen):
                rows[scenario.name] = run(scenario, pid, args)
                print(line(scenario, rows[scenario.name]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
