"""What `voxray run` takes while nobody uses it, and how long it takes to start.

A hello-world Serve application with as many replicas (loadtest/hello.py) is started for
comparison. Both have the machine to themselves, one after the other.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from loadtest.server import VOXRAY, server
from loadtest.usage import spent, usage

PORT = 8192
PATIENCE_S = 120.0
Command = list[str]


def commands(config: Path | None) -> dict[str, Command]:
    voxray = [VOXRAY, "run", "--port", str(PORT)]
    return {
        "hello": [sys.executable, "-m", "loadtest.hello", str(PORT)],
        "voxray": voxray + (["--config", str(config)] if config else []),
    }


PATHS = {"hello": "/", "voxray": "/v1/ready"}


@contextmanager
def started(name: str, command: Command) -> Iterator[tuple[int, float]]:
    """The process id of a server, and the seconds until it answered."""
    began = time.monotonic()
    url = f"http://127.0.0.1:{PORT}{PATHS[name]}"
    with server(command, url, PATIENCE_S, subprocess.DEVNULL) as pid:
        yield pid, time.monotonic() - began


def idle(pid: int, settle_s: float, seconds: float) -> dict[str, Any]:
    """What the server and its processes use while nothing is asked of them."""
    time.sleep(settle_s)
    before = usage(pid)
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    after = usage(pid)
    cpu = spent(before, after)
    return {
        "cpu_percent": round(100 * sum(cpu.values()) / took_s, 1),
        "pss_gib": round(after.pss / (1 << 30), 2),
        "processes": len(psutil.Process(pid).children(recursive=True)) + 1,
        "cpu_percent_by_process": {
            name: round(100 * share / took_s, 1)
            for name, share in sorted(cpu.items(), key=lambda it: -it[1])
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=2, help="starts of each")
    parser.add_argument("--settle", type=float, default=10, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=30, help="seconds of the measurement")
    parser.add_argument("--config", type=Path, help="default: as `voxray run`")
    parser.add_argument("--only", choices=PATHS, help="without the other")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for turn in range(args.starts):
        for name, command in commands(args.config).items():
            if args.only not in (None, name):
                continue
            with started(name, command) as (pid, start_s):
                row: dict[str, Any] = {"server": name, "start_s": round(start_s, 1)}
                if turn == args.starts - 1:
                    row |= idle(pid, args.settle, args.seconds)
            rows.append(row)
            print(_line(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def _line(row: dict[str, Any]) -> str:
    line = f"{row['server']:7} started in {row['start_s']:5.1f} s"
    if "pss_gib" not in row:
        return line
    return (
        f"{line}; idle: {row['cpu_percent']:.1f} % of a core, {row['pss_gib']:.2f} GiB, "
        f"{row['processes']} processes\n        {row['cpu_percent_by_process']}"
    )


if __name__ == "__main__":
    main()
