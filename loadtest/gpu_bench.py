"""What one GPU serves, with full-size architectures and random weights: one table, JSON, a plot.

    pip install '.[gpu,kokoro]' matplotlib && python -m loadtest.gpu_bench --out results

Speed does not depend on what the weights are; words do, and are noise here. One engine after the
other has the GPU, but for the conversation, which has all three. `--tiny` runs everything in
minutes on tiny models, to see that it runs: its numbers mean nothing.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deployments.chat.vllm import VllmChat
from deployments.interfaces import (
    RATE,
    VOICE_RATE,
    ChatOptions,
    ChatRequest,
    EngineHypothesis,
    Message,
    SpeechOptions,
    SpeechRequest,
    Utterance,
)
from deployments.speaker.kokoro import Kokoro
from deployments.transcriber.voxtral import Voxtral
from deployments.transcriber.voxtral_realtime import VoxtralRealtime
from loadtest import checkpoints
from serve_app.models.gpu_plan import USED

CHUNK = RATE // 10
SENTENCE = "The weather in Paris will be sunny and warm tomorrow, with a light wind."
LAG_MS = 200.0
"""The knee: more streams than this many ms of p99 lag behind the delay are too many."""


class Scale(NamedTuple):
    tiny: bool
    streams: tuple[int, ...]
    live_s: float
    stream_minutes: float
    recording_minutes: float
    requests: tuple[int, ...]
    clauses: tuple[int, ...]


FULL = Scale(False, (1, 25, 50, 100, 150, 200, 250, 300), 20.0, 60.0, 45.0, (1, 8, 32), (1, 8, 32))
TINY = Scale(True, (1, 4), 3.0, 0.5, 1.0, (1, 4), (1, 2))


class Row(NamedTuple):
    what: str
    value: float
    unit: str


def noise(seconds: float, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    pcm: bytes = (random.standard_normal(int(seconds * RATE)) * 3000).astype("<i2").tobytes()
    return pcm


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(np.asarray(values), share)) if values else 0.0


class Ear:
    """Speakers, paced; how far behind its audio each guess is."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.began: dict[int, float] = {}
        self.lags: list[float] = []
        self.finals: dict[int, asyncio.Future[EngineHypothesis]] = {}

    def emit(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        now = time.monotonic()
        for hypothesis in hypotheses:
            key: Any = hypothesis.key
            self.lags.append(1000 * (now - self.began[key] - hypothesis.until / RATE))
            if hypothesis.final:
                self.finals[key].set_result(hypothesis)

    async def speak(self, key: int, pcm: bytes, paced: bool) -> EngineHypothesis:
        self.finals[key] = asyncio.get_running_loop().create_future()
        self.began[key] = time.monotonic()
        options = SpeechOptions()
        for at in range(0, len(pcm), 2 * CHUNK):
            if paced:
                due = self.began[key] + (at / 2 + CHUNK) / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            ended = at + 2 * CHUNK >= len(pcm)
            await self.engine.feed([Utterance(key, pcm[at : at + 2 * CHUNK], ended, options)])
        return await self.finals[key]


class Bench:
    def __init__(self, scale: Scale, folder: Path) -> None:
        self.scale = scale
        self.folder = folder
        self.rows: list[Row] = []
        self.knee: list[tuple[int, float, float]] = []
        self.steps: list[tuple[float, float]] = []

    def say(self, what: str, value: float, unit: str) -> None:
        self.rows.append(Row(what, round(value, 2), unit))
        print(f"{what:62} {value:10.1f} {unit}", flush=True)

    def size(self, name: str) -> checkpoints.Size:
        return checkpoints.TINY if self.scale.tiny else checkpoints.SIZES[name]

    def made_up(self, engine: Any) -> Any:
        """Weights out of nothing; tiny ones are on disk."""
        if not self.scale.tiny:
            engine._vllm._settings["load_format"] = "dummy"
        return engine

    def realtime(self, share: float, streams: int) -> VoxtralRealtime:
        tiny, name = self.scale.tiny, "Voxtral-Mini-4B-Realtime-2602"
        path = checkpoints.voxtral_realtime(self.folder / "realtime", self.size(name), tiny)
        memory = 0.0 if tiny else share * USED
        engine = VoxtralRealtime(str(path), 480, streams, 40.0, 2048, 60.0, tiny, memory)
        return self.made_up(engine)  # type: ignore[no-any-return]

    def chat(self, share: float) -> VllmChat:
        tiny = self.scale.tiny
        path = checkpoints.chat(self.folder / "chat", self.size("chat-8B"), tiny)
        memory = 0.0 if tiny else share * USED
        chat = VllmChat(str(path), 4096, 64, "mistral", "", 60.0, tiny, memory)
        return self.made_up(chat)  # type: ignore[no-any-return]

    def kokoro(self) -> Kokoro:
        path = checkpoints.kokoro(self.folder / "kokoro", ("af_heart",), small=self.scale.tiny)
        return Kokoro(str(path), "auto", 32)

    async def live(self) -> None:
        """Streams, more and more, up to the knee."""
        ear = Ear(self.realtime(1.0, max(self.scale.streams)))
        await ear.engine.start(ear.emit)
        best = 0
        for streams in self.scale.streams:
            ear.lags.clear()
            made, began = ear.engine.generated(), time.monotonic()
            said = (
                ear.speak(1000 * streams + n, noise(self.scale.live_s, n), paced=True)
                for n in range(streams)
            )
            await asyncio.gather(*said)
            spent = time.monotonic() - began
            p50, p99 = percentile(ear.lags, 50) - 480, percentile(ear.lags, 99) - 480
            self.knee.append((streams, p50, p99))
            self.say(f"live, {streams} streams: p99 behind the 480 ms delay", p99, "ms")
            self.say(
                f"live, {streams} streams", (ear.engine.generated() - made) / spent, "tokens/s"
            )
            best = streams if p99 <= LAG_MS else best
            if p99 > 10 * LAG_MS:
                break
        self.say(f"live streams with p99 within {LAG_MS:g} ms", best, "streams")
        await self.long_stream(ear)
        await ear.engine.stop()

    async def long_stream(self, ear: Ear) -> None:
        """One stream without a pause, as fast as it goes: ms a token as it grows older."""
        minutes = self.scale.stream_minutes
        piece_s = minutes * 60 / 12
        key, options = 10**9, SpeechOptions()
        ear.finals[key] = asyncio.get_running_loop().create_future()
        ear.began[key] = time.monotonic()
        for number in range(12):
            made, began = ear.engine.generated(), time.monotonic()
            pcm, ended = noise(piece_s, number), number == 11
            await ear.engine.feed([Utterance(key, pcm, ended, options)])
            wanted = made + int(piece_s * 12.5) - 20
            while ear.engine.generated() < wanted and not ear.finals[key].done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            step_ms = 1000 * (time.monotonic() - began) / max(1, ear.engine.generated() - made)
            self.steps.append(((number + 1) * piece_s / 60, step_ms))
        await ear.finals[key]
        self.say("a token in the first twelfth of a long stream", self.steps[0][1], "ms")
        self.say(f"a token in the last twelfth of {minutes:g} minutes", self.steps[-1][1], "ms")

    async def recording(self) -> None:
        tiny, minutes = self.scale.tiny, self.scale.recording_minutes
        size = self.size("Voxtral-Mini-3B-2507")
        path = checkpoints.voxtral(self.folder / "voxtral", size, tiny)
        memory = 0.0 if tiny else USED
        ear = Ear(self.made_up(Voxtral(str(path), 64, 1e9, 4096, 64, 60.0, tiny, memory)))
        await ear.engine.start(ear.emit)
        began = time.monotonic()
        await ear.speak(0, noise(minutes * 60), paced=False)
        spent = time.monotonic() - began
        self.say(f"a recording of {minutes:g} minutes", minutes * 60 / spent, "x real time")
        self.say("its tokens (random weights never stop early)", ear.engine.generated(), "tokens")
        await ear.engine.stop()

    async def replies(self) -> None:
        chat = self.chat(1.0)
        await chat.start()
        for many in self.scale.requests:
            answers = await asyncio.gather(*(self.reply(chat, n) for n in range(many)))
            firsts = [first for first, _ in answers]
            self.say(f"chat, {many} at once: first token p50", statistics.median(firsts), "ms")
            self.say(f"chat, {many} at once: first token p99", percentile(firsts, 99), "ms")
        await chat.stop()

    async def reply(self, chat: VllmChat, number: int) -> tuple[float, int]:
        """Ms to the first token of a reply, and its tokens."""
        said = f"{number}: {SENTENCE} " * 8
        ask = ChatRequest(number, (Message("user", said),), ChatOptions(max_tokens=64))
        began, first, tokens = time.monotonic(), 0.0, 0
        async for piece in chat.reply(ask):
            first = first or 1000 * (time.monotonic() - began)
            tokens = piece.tokens[1] or tokens
        return first, tokens

    async def speech(self) -> None:
        speaker = self.kokoro()
        await speaker.start()
        for many in self.scale.clauses:
            await asyncio.gather(*(self.clause(speaker, n) for n in range(many)))  # its shapes
            began = time.monotonic()
            spoken = await asyncio.gather(*(self.clause(speaker, n) for n in range(many)))
            spent = time.monotonic() - began
            firsts = [first for first, _ in spoken]
            seconds = sum(samples for _, samples in spoken) / VOICE_RATE
            self.say(f"kokoro, {many} at once: first audio p50", statistics.median(firsts), "ms")
            self.say(f"kokoro, {many} at once: first audio max", max(firsts), "ms")
            self.say(f"kokoro, {many} at once", seconds / spent, "x real time")
        await speaker.stop()

    async def clause(self, speaker: Kokoro, number: int) -> tuple[float, int]:
        """Ms to the first audio of a sentence, and all its samples."""
        began, first, samples = time.monotonic(), 0.0, 0
        async for pcm in speaker.speak(SpeechRequest(number, SENTENCE, "af_heart")):
            first = first or 1000 * (time.monotonic() - began)
            samples += len(pcm) // 2
        return first, samples

    async def conversation(self) -> None:
        """All three on the GPU: from the end of speech to the final, a token, and audio."""
        ear, chat, speaker = Ear(self.realtime(0.55, 32)), self.chat(0.35), self.kokoro()
        await ear.engine.start(ear.emit)
        await chat.start()
        await speaker.start()
        waits = []
        for turn in range(5):
            final = asyncio.create_task(ear.speak(turn, noise(3.0, turn), paced=True))
            await asyncio.sleep(3.0)
            began = time.monotonic()
            await final
            await self.reply_begins(chat, turn)
            await self.clause(speaker, turn)
            waits.append(1000 * (time.monotonic() - began))
        self.say("a turn: end of speech to first audio, p50", statistics.median(waits), "ms")
        for part in (ear.engine, chat, speaker):
            await part.stop()

    async def reply_begins(self, chat: VllmChat, turn: int) -> None:
        """As many tokens as a first clause has."""
        ask = ChatRequest(turn, (Message("user", SENTENCE),), ChatOptions(max_tokens=8))
        async for _ in chat.reply(ask):
            pass

    def hardware(self) -> str:
        asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        try:
            told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            return told.strip().replace("\n", "; ")
        except (OSError, subprocess.SubprocessError):
            return f"no GPU: {platform.processor() or platform.machine()}"

    def write(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        body = {"hardware": self.hardware(), "tiny": self.scale.tiny}
        body |= {"rows": [row._asdict() for row in self.rows]}
        body |= {"knee": self.knee, "steps": self.steps}
        (out / "gpu_bench.json").write_text(json.dumps(body, indent=1))
        lines = [f"| {row.what} | {row.value:g} {row.unit} |" for row in self.rows]
        head = f"# {body['hardware']}{', tiny models' if self.scale.tiny else ''}\n\n"
        table = "\n".join(["| what | value |", "|---|---|", *lines])
        (out / "gpu_bench.md").write_text(f"{head}{table}\n")
        self.plot(out / "gpu_bench.png")

    def plot(self, file: Path) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
        streams = [streams for streams, _, _ in self.knee]
        left.plot(streams, [p50 for _, p50, _ in self.knee], "o-", label="p50")
        left.plot(streams, [p99 for _, _, p99 in self.knee], "o-", label="p99")
        left.axhline(LAG_MS, linestyle=":", color="gray")
        left.set(xlabel="live streams", ylabel="ms behind the delay of 480 ms", title="the knee")
        left.legend()
        right.plot(*zip(*self.steps, strict=True), "o-")
        right.set(xlabel="age of a stream, minutes", ylabel="ms a token", title="a long stream")
        right.set_ylim(bottom=0)
        figure.savefig(file, dpi=120)


PARTS = ("live", "recording", "replies", "speech", "conversation")


async def run(bench: Bench, parts: Sequence[str]) -> None:
    for part in parts:
        await getattr(bench, part)()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    asked.add_argument("--out", type=Path, default=Path("gpu_bench"))
    asked.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    asked.add_argument("--tiny", action="store_true")
    args = asked.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(TINY if args.tiny else FULL, Path(folder))
        asyncio.run(run(bench, args.parts.split(",")))
        bench.write(args.out)


if __name__ == "__main__":
    main()
