"""Long recordings as jobs: how fast, in how much memory, over how many replicas, at whose cost.

Every part prints a ratio against something of the same run: efficiency against one replica, live
latency against the same load without jobs, decoding against ffmpeg on the same file.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import yaml

from deployments.decoding import Bounds, decode
from deployments.interfaces import RATE
from loadtest.generator import Plan
from loadtest.server import voxray_server
from loadtest.speech import conversation, wav
from loadtest.usage import name

PORT = 8192
ENGINE_MS = 50.0
FLOOD = 8
"""Jobs that are handed in at once, and again as soon as fewer wait."""


def recording(folder: Path, minutes: float) -> Path:
    """Speech by repetition, as MP3: 16 kHz in, 44.1 kHz stereo in the file."""
    import soundfile
    import soxr

    said = np.frombuffer(conversation(), np.int16).astype(np.float32) / 32768
    once = soxr.resample(said, RATE, 44_100)
    both = np.stack([once, once * 0.9], axis=1)
    times = int(minutes * 60 * 44_100 / len(both)) + 1
    file = folder / f"{minutes:g}-minutes.mp3"
    with soundfile.SoundFile(file, "w", 44_100, 2, format="MP3") as out:
        for _ in range(times):
            out.write(both)
    return file


@contextmanager
def server(folder: Path, **args: Any) -> Iterator[tuple[int, str]]:
    """voxray with these `args`; its pid and URL."""
    config = folder / "bench.yaml"
    args["storage"] = {"directory": str(Path(tempfile.mkdtemp(dir=folder)))}
    args.setdefault("jobs", {})["cache_entries"] = 0
    application = {"name": "voxray", "route_prefix": "/", "import_path": "serve_app.app:build"}
    config.write_text(yaml.safe_dump({"applications": [{**application, "args": args}]}))
    with voxray_server(config, PORT) as (pid, address):
        yield pid, f"http://{address}"


class Memory:
    """The most that the workers and their decoders took, in MiB, beyond what they had."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = self._now()
        self.peak = 0.0

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self.peak = max(self.peak, self._now() - self._before)

    def _now(self) -> float:
        taken = 0
        for process in psutil.Process(self._root).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name(process) == "Worker" or "deployments.decoding.child" in " ".join(
                    process.cmdline()
                ):
                    taken += process.memory_info().rss
        return taken / (1 << 20)


def submit(url: str, file: Path, **options: str) -> str:
    with file.open("rb") as body:
        answer = httpx.post(
            f"{url}/v1/jobs", files={"file": (file.name, body)}, data=options, timeout=300
        )
    return str(answer.raise_for_status().json()["id"])


def result(url: str, id_: str) -> dict[str, Any]:
    while (job := httpx.get(f"{url}/v1/jobs/{id_}", timeout=60).json())["state"] != "completed":
        if job["state"] == "failed":
            raise RuntimeError(job["error"])
        time.sleep(0.2)
    found: dict[str, Any] = httpx.get(f"{url}/v1/jobs/{id_}/results", timeout=60).json()
    return found


def one_job(folder: Path, file: Path, diarize: bool, **args: Any) -> dict[str, float]:
    """A job on a separate server: the seconds of its stages, and its memory."""
    with server(folder, **args) as (pid, url), Memory(pid) as memory:
        found = result(url, submit(url, file, diarize=str(diarize).lower()))
    metrics: dict[str, float] = found["performance_metrics"]
    return {**metrics, "audio_s": found["duration_ms"] / 1000, "memory_mib": memory.peak}


def scaled(engine: dict[str, Any], replicas: int, at_once: int) -> dict[str, Any]:
    scale = {"min_replicas": replicas, "max_replicas": replicas}
    return {
        "profile": "sim",
        "transcriber": {**engine, "scale": scale},
        "jobs": {"windows_at_once": at_once},
    }


def over_replicas(
    title: str, folder: Path, file: Path, engine: dict[str, Any], counts: list[int]
) -> None:
    """The same job on more and more replicas, one window at a time on each."""
    first = 0.0
    for count in counts:
        result = one_job(folder, file, False, **scaled(engine, count, 1))
        spent = result["transcribe_s"]
        first = first or spent
        print(
            f"{title:13} {count} replicas: {result['audio_s'] / spent:7.1f}x real time, "
            f"efficiency {first / spent / count * counts[0]:.2f}, "
            f"memory +{result['memory_mib']:.0f} MiB",
            flush=True,
        )


def decoding(file: Path) -> None:
    """CPU seconds for 16 kHz mono, ours and ffmpeg's; the decoder alone, without a process."""
    ours, theirs, audio = [], [], 0.0
    ffmpeg = shutil.which("ffmpeg")
    for _ in range(3):
        began = time.process_time()
        audio = sum(len(pcm) for pcm in decode(file, Bounds(1e9, 1e9))) / 2 / RATE
        ours.append(time.process_time() - began)
        if ffmpeg:
            before = os.times()
            command = [ffmpeg, "-v", "error", "-threads", "1", "-i", str(file)]
            subprocess.run(
                [*command, "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            after = os.times()
            theirs.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
    print(f"decode        ours {audio / median(ours):.0f}x real time on one core", end="")
    if theirs:
        print(
            f", ffmpeg {audio / median(theirs):.0f}x: "
            f"{median(theirs) / median(ours):.2f} of its speed"
        )
    else:
        print("; ffmpeg is not installed")


def live(url: str, sessions: int, seconds: float) -> dict[str, Any]:
    """The latency of live sessions, from a generator in a separate process."""
    socket = url.replace("http", "ws") + "/v1/transcribe/stream"
    plan = Plan(socket, sessions, 100, seconds, 3, False)
    out = subprocess.run(
        [sys.executable, "-m", "loadtest.generator", json.dumps(asdict(plan))],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    found: dict[str, Any] = json.loads(out)
    return found


def flooded(url: str, file: Path, over: threading.Event) -> None:
    """Keep enough jobs waiting for every worker."""
    ids: list[str] = []
    while not over.is_set():
        if httpx.get(f"{url}/v1/jobs", params={"state": "queued"}, timeout=60).json()["data"]:
            over.wait(0.5)
        else:
            ids += [submit(url, file, diarize="false") for _ in range(FLOOD)]
    for id_ in ids:
        httpx.delete(f"{url}/v1/jobs/{id_}", timeout=60)


def beside_live(folder: Path, file: Path, engine: str, sessions: int, rounds: int) -> None:
    """Live latency with and without jobs, in turn, on one server."""
    args = scaled({"engine": engine, "sim": {"latency_ms": ENGINE_MS}}, 1, 2)
    p99: dict[bool, list[float]] = {False: [], True: []}
    with server(folder, **args) as (_, url):
        for number in range(2 * rounds):
            flood, over = bool(number % 2), threading.Event()
            thread = threading.Thread(target=flooded, args=(url, file, over))
            if flood:
                thread.start()
                time.sleep(3)
            found = live(url, sessions, 15)
            p99[flood].append(found["p99_ms"])
            late = "" if found["honest"] else " GENERATOR LATE"
            print(
                f"live, {engine:12} {sessions} sessions, {'with' if flood else 'without'} jobs: "
                f"p50 {found['p50_ms']:.1f}, p99 {found['p99_ms']:.1f} ms{late}",
                flush=True,
            )
            over.set()
            if flood:
                thread.join()
                time.sleep(2)
    without, with_ = median(p99[False]), median(p99[True])
    print(f"live, {engine:12} p99 with jobs {with_ / without:.2f}x of without", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--sphinx-minutes", type=float, default=45, help="pocketsphinx is slow")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["decode", "sim", "replicas", "sphinx", "live"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="voxray-bench-") as place:
        folder = Path(place)
        file = recording(folder, args.minutes)

        def wanted(part: str) -> bool:
            return args.only in (None, part)

        if wanted("decode"):
            decoding(file)
        if wanted("sim"):
            result = one_job(folder, file, True, profile="sim", diarizer={"engine": "bic"})
            print(f"sim + bic    {result['realtime_factor']:.0f}x real time, {result}", flush=True)
        if wanted("replicas"):
            asleep = {"engine": "sim", "sim": {"latency_ms": 2000}}
            over_replicas("sim, 2 s", folder, file, asleep, args.replicas)
        if wanted("sphinx"):
            spoken = recording(folder, args.sphinx_minutes)
            sphinx = {"engine": "pocketsphinx", "pocketsphinx": {"batch_decoders": 1}}
            over_replicas("pocketsphinx", folder, spoken, sphinx, [1, 2])
        if wanted("live"):
            short = folder / "short.wav"
            short.write_bytes(wav(conversation() * 40))
            beside_live(folder, short, "sim", args.sessions, args.rounds)
            beside_live(folder, short, "pocketsphinx", 2, args.rounds)


if __name__ == "__main__":
    main()
