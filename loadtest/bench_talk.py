"""How long a person waits for an answer: spoken conversations with `sim` engines of stated times.

From the end of speech, as confirmed, to the first audio at the client, with and without
speculation, against the sequential sum of the three engines measured in the same run; and how soon
an interruption silences the reply and stops the models. The talkers share the machine with it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import httpx2 as httpx
import yaml

from deployments.chat.sim import SimChat
from deployments.interfaces import (
    ChatRequest,
    EngineHypothesis,
    Message,
    SpeechOptions,
    SpeechRequest,
    Utterance,
)
from deployments.speaker.clauses import ClauseSplitter
from deployments.speaker.sim import SimSpeaker
from deployments.transcriber.sim import SimTranscriber
from loadtest.percentile import percentile
from loadtest.server import voxray_server
from loadtest.talker import Plan
from serve_app.observability.histogram import Histogram, State
from serve_app.observability.table import BUCKETS_S

PORT = 8192
TOKEN_MS = 2.0
LATE_MS = 20.0
SETTLE_S = 0.3
WATCH_S = 2.0
"""After an interruption: how long nothing may be made any more."""


def config(stages: Sequence[float], preemptive_generation: bool, endless: bool) -> dict[str, Any]:
    """`endless`: replies that are still being written, and spoken, when they are interrupted."""
    transcribe_ms, token_ms, audio_ms = stages
    tokens = {"tokens": 400, "token_ms": 25.0} if endless else {"token_ms": TOKEN_MS}
    speaker = {"first_audio_ms": audio_ms, "realtime_factor": 1.0 if endless else 10.0}
    return {
        "profile": "sim",
        "transcriber": {"sim": {"latency_ms": transcribe_ms}},
        "chat": {"sim": {"first_token_ms": token_ms, **tokens}},
        "speaker": {"sim": speaker},
        "conversation": {"preemptive_generation": preemptive_generation},
        "ingress": {"scale": {"min_replicas": 1, "max_replicas": 1}},
    }


async def sequential_ms(stages: Sequence[float]) -> float:
    """The three engines called one after the other, in this process: nothing of voxray between."""
    transcribe_ms, token_ms, audio_ms = stages
    began = time.perf_counter()
    await _transcribed(SimTranscriber(transcribe_ms, 2.5, 0.0, 0))
    splitter, clause = ClauseSplitter(), ""
    ask = ChatRequest(0, (Message("user", "hello"),))
    async with aclosing(SimChat(token_ms, TOKEN_MS, 26).reply(ask)) as pieces:  # type: ignore[type-var]
        async for written in pieces:
            if clauses := splitter.push(written.text):
                clause = clauses[0]
                break
    speaker = SimSpeaker(audio_ms, 2.5, 10.0)
    async with aclosing(speaker.speak(SpeechRequest(0, clause, "sim-low"))) as sounds:  # type: ignore[type-var]
        await anext(sounds)
    return (time.perf_counter() - began) * 1000


async def _transcribed(sim: SimTranscriber) -> None:
    ended = asyncio.Event()

    def emit(hypotheses: Sequence[EngineHypothesis]) -> None:
        ended.set()

    await sim.start(emit)
    await sim.feed([Utterance("one", bytes(32_000), True, SpeechOptions())])
    await ended.wait()


def talk(plan: Plan) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.talker", json.dumps(asdict(plan))],
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{percentile(ordered, 0.5):7.1f} {percentile(ordered, 0.99):7.1f}"


def report(name: str, result: dict[str, Any], values: str, note: str) -> None:
    late = "" if percentile(sorted(result["late_ms"]), 0.99) <= LATE_MS else " TALKERS LATE"
    lost = f" {result['lost']} lost" if result["lost"] else ""
    print(f"{name:34} {result['conversations']:4} {values}{note}{lost}{late}", flush=True)


def measure_answers(
    args: argparse.Namespace, preemptive_generation: bool, sum_ms: float
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    name = "with speculation" if preemptive_generation else "without speculation"
    with _server(config(args.stages, preemptive_generation, False)) as (_, address):
        url = f"ws://{address}/v1/realtime"
        for count, together in [*((n, False) for n in args.conversations), (args.together, True)]:
            before = _overheads(address)
            result = talk(Plan(url, count, args.turns, together, False))
            values = result["first_audio_ms"]
            own = _overheads(address, before)
            ratio = percentile(sorted(values), 0.5) / sum_ms
            kind = f"{name}, end together" if together else name
            own_ms = [own.quantile(share) * 1000 for share in (0.5, 0.99)]
            note = f"  own {own_ms[0]:5.1f} {own_ms[1]:6.1f}  {ratio:.2f}x"
            report(kind, result, spread(values), note)
            rows[f"{kind} {count}"] = {**result, "own_ms_p50_p99": own_ms}
    return rows


def _overheads(address: str, before: Histogram | None = None) -> Histogram:
    """voxray's own share of every turn so far, or since `before`, as it tells it."""
    performance = httpx.get(f"http://{address}/speech-to-speech/performance?raw=true").json()
    cumulative = list(performance["stages"]["overhead_ms"]["buckets"].values())
    earlier = before.state().counts if before else repeat(0)
    counts = [high - low for low, high in pairwise((0, *cumulative))]
    new = tuple(count - known for count, known in zip(counts, earlier, strict=False))
    return Histogram(State(new, 0.0, 0.0, BUCKETS_S[-1]))


def measure_interruptions(args: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with _server(config(args.stages, True, True)) as (_, address):
        for count in args.conversations:
            url = f"ws://{address}/v1/realtime"
            result = talk(Plan(url, count, 3, False, True))
            time.sleep(SETTLE_S)
            before = _made(address)
            time.sleep(WATCH_S)
            after = _made(address)
            extra = [after[kind]["made"] - before[kind]["made"] for kind in ("chat", "speaker")]
            note = f"  made after it: {extra[0]} tokens, {extra[1]} samples"
            report("barge-in: onset to silence", result, spread(result["overheard_ms"]), note)
            report("          onset to cancelled", result, spread(result["confirmed_ms"]), "")
            rows[f"interruptions {count}"] = {**result, "made_after": extra}
    return rows


def _made(address: str) -> dict[str, Any]:
    made: dict[str, Any] = httpx.get(f"http://{address}/speech-to-speech/metrics").json()["made"]
    return made


def _server(args: dict[str, Any]) -> Any:
    file = Path(tempfile.mkdtemp(prefix="voxray-bench-")) / "talk.yaml"
    application = {
        "name": "voxray",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": args,
    }
    http = {"host": "127.0.0.1", "port": PORT}
    file.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
    return voxray_server(file, PORT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--together", type=int, default=32, help="conversations that end together")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument(
        "--stages",
        type=lambda text: [float(ms) for ms in text.split(",")],
        default=[100.0, 50.0, 150.0],
        help="ms of the transcriber, to the first token, to the first audio",
    )
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    sums = sorted(asyncio.run(sequential_ms(args.stages)) for _ in range(5))
    print(f"sequential sum of the engines: {sums[2]:.1f} ms (median of 5)")
    print(
        f"{'end of speech to first audio':34}    n  p50 ms  p99 ms  own p50, p99, ratio to the sum"
    )
    rows = measure_answers(args, False, sums[2])
    rows |= measure_answers(args, True, sums[2])
    rows |= measure_interruptions(args)
    if args.json:
        args.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
