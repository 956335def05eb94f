"""Conversations over the OpenAI Realtime socket, paced as people speak, many in one process.

Each person says a sentence, listens to the reply, and says the next; or, in a plan that interrupts,
says it while the reply is still coming. Run as a process: a JSON plan on argv, a JSON result on
stdout; times in ms, seen from the client.
"""

import asyncio
import base64
import itertools
import json
import random
import sys
from dataclasses import asdict, dataclass, field

import numpy as np
import soxr
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from deployments.interfaces import RATE, VOICE_RATE
from loadtest.speech import SENTENCES, speak
from serve_app.client.key import key_headers

CHUNK_MS = 20
CHUNK_BYTES = VOICE_RATE * CHUNK_MS // 1000 * 2
LISTEN_S = 20.0
"""A reply that takes longer is lost."""

ONSET = 300
"""The first sample as loud as this counts as the beginning of speech."""


@dataclass(frozen=True)
class Plan:
    url: str
    conversations: int
    turns: int
    together: bool
    """All end their sentences at the same moment."""
    interrupt: bool


@dataclass
class Result:
    conversations: int = 0
    turns: int = 0
    lost: int = 0
    first_audio_ms: list[float] = field(default_factory=list)
    """From the end of speech, as the server tells it, to the first audio."""
    overheard_ms: list[float] = field(default_factory=list)
    """From the onset of the interruption to the last audio."""
    confirmed_ms: list[float] = field(default_factory=list)
    """From its onset to the server's word that the reply is cancelled."""
    late_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def sentences() -> list[tuple[list[str], int]]:
    """Each as appends of `CHUNK_MS`, and the chunk in which the voice begins."""
    return [_appends(speak(text)) for text in SENTENCES]


def _appends(samples: "np.typing.NDArray[np.int16]") -> tuple[list[str], int]:
    onset = int(np.argmax(np.abs(samples) > ONSET)) * 1000 // RATE // CHUNK_MS
    floats = samples.astype(np.float32) / 32768
    pcm = (soxr.resample(floats, RATE, VOICE_RATE) * 32767).astype("<i2").tobytes()
    pieces = [pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES)]
    return [append(piece) for piece in pieces], onset


def append(pcm: bytes) -> str:
    audio = base64.b64encode(pcm).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


SILENCE = append(bytes(CHUNK_BYTES))


class Talker:
    """One conversation."""

    def __init__(self, plan: Plan, result: Result, spoken: list[tuple[list[str], int]]) -> None:
        self.plan = plan
        self.result = result
        self.spoken = itertools.cycle(spoken)
        self.loop = asyncio.get_running_loop()
        self.queue: list[str] = []
        self.sounding = asyncio.Event()
        self.done = asyncio.Event()
        self.stopped: float | None = None
        self.onset_at: float | None = None
        self.onset_in = -1
        self.last_audio = 0.0

    async def run(self, start: asyncio.Event, offset_s: float) -> None:
        async with connect(
            self.plan.url, additional_headers=key_headers(), compression=None, max_size=None
        ) as socket:
            tasks = [asyncio.create_task(work) for work in (self.send(socket), self.hear(socket))]
            await start.wait()
            await asyncio.sleep(offset_s)
            for number in range(self.plan.turns):
                await self.turn(number == 0)
            for task in tasks:
                task.cancel()

    async def turn(self, first: bool) -> None:
        self.result.turns += 1
        self.done.clear()
        self.sounding.clear()
        try:
            async with asyncio.timeout(LISTEN_S):
                self.say()
                if self.plan.interrupt and not first:
                    await self.done.wait()  # the reply to the turn before was still coming
                await self.sounding.wait()
                if not self.plan.interrupt:
                    await self.done.wait()
        except TimeoutError:
            self.result.lost += 1
        await asyncio.sleep(0.5)

    def say(self) -> None:
        chunks, self.onset_in = next(self.spoken)
        self.onset_at = None
        self.queue = list(chunks)

    async def send(self, socket: ClientConnection) -> None:
        """A chunk every `CHUNK_MS`, speech or silence, however the server responds."""
        began = self.loop.time()
        for number in itertools.count():
            due = began + number * CHUNK_MS / 1000
            await asyncio.sleep(max(0.0, due - self.loop.time()))
            self.result.late_ms.append((self.loop.time() - due) * 1000)
            if self.queue:
                if self.onset_in == 0:
                    self.onset_at = due + CHUNK_MS / 1000  # when the chunk has been spoken
                self.onset_in -= 1
            await socket.send(self.queue.pop(0) if self.queue else SILENCE)

    async def hear(self, socket: ClientConnection) -> None:
        async for frame in socket:
            assert isinstance(frame, str)
            self.on_event(frame)

    def on_event(self, frame: str) -> None:
        now = self.loop.time()
        if frame.startswith('{"type":"response.output_audio.delta"'):
            self.last_audio = now
            self.sounding.set()
            if self.stopped is not None:
                self.result.first_audio_ms.append((now - self.stopped) * 1000)
                self.stopped = None
        elif frame.startswith('{"type":"input_audio_buffer.speech_stopped"'):
            self.stopped = now
        elif frame.startswith('{"type":"response.done"'):
            self.on_done(now, json.loads(frame)["response"]["status"])
        elif frame.startswith('{"type":"error"'):
            self.result.errors.append(frame)

    def on_done(self, now: float, status: str) -> None:
        if status == "cancelled" and self.onset_at is not None:
            self.result.overheard_ms.append(max(0.0, self.last_audio - self.onset_at) * 1000)
            self.result.confirmed_ms.append((now - self.onset_at) * 1000)
            self.sounding.clear()
        if status != "completed" and not self.plan.interrupt:
            self.result.lost += 1
        self.done.set()


async def main(plan: Plan) -> None:
    result = Result(conversations=plan.conversations)
    spoken = sentences()[:1] if plan.together else sentences()
    start = asyncio.Event()
    spread = random.Random(1)
    talkers = [
        Talker(plan, result, spoken).run(start, 0.0 if plan.together else spread.uniform(0, 3))
        for _ in range(plan.conversations)
    ]
    running = asyncio.gather(*talkers)
    await asyncio.sleep(1 + plan.conversations / 50)
    start.set()
    await running
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    uvloop.run(main(Plan(**json.loads(sys.argv[1]))))
