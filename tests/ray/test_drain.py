"""A server that stops: real processes, real signals, sessions and conversations in full flow."""

import asyncio
import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import websockets
from websockets.asyncio.client import connect

from tests.api.sockets.test_live_socket import PATH, chunks, converse, of, words
from tests.api.sockets.test_realtime import TRANSCRIBED, Client, at_24k
from tests.fakes import LocalReplicaSet, models, served, sim_transcriber
from tests.server import Server, running
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0
SLOW_REPLIES = {"sim": {"tokens": 30, "token_ms": 50.0}}
TRANSCRIBER = {"latency_ms": 5.0, "words_per_second": 2.5, "error_rate": 0.0, "seed": 0}
SIM = {"profile": "sim", "transcriber": {"sim": TRANSCRIBER}, "chat": SLOW_REPLIES}


@dataclass
class Heard:
    """What a live session got, and how it was closed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None

    @property
    def audio_ms(self) -> int:
        return int(self.events[-1]["metrics"]["audio_ms"])


async def speaking(address: str, pcm: bytes, stop: asyncio.Event, heard: Heard) -> None:
    """A session that speaks in real time, over and over, until `stop` or until it is closed."""
    async with connect(f"ws://{address}{PATH}", max_size=None) as socket:
        gathering = asyncio.create_task(gather(socket, heard))
        began = time.monotonic()
        for number, chunk in enumerate(itertools.cycle(chunks(pcm))):
            if stop.is_set() or gathering.done():
                break
            await send(socket, chunk)
            await asyncio.sleep(began + (number + 1) / 10 - time.monotonic())
        if stop.is_set():
            await send(socket, '{"type":"stop"}')
        await asyncio.wait_for(gathering, 30)
        heard.code = socket.close_code


async def gather(socket: Any, heard: Heard) -> None:
    try:
        async for frame in socket:
            heard.events.append(json.loads(frame))
    except websockets.ConnectionClosedError:
        pass


async def send(socket: Any, frame: str | bytes) -> None:
    try:
        await socket.send(frame)
    except websockets.ConnectionClosed:
        pass


class Talker:
    """An OpenAI client that speaks, hears the reply out, and speaks again until it is closed."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.code: int | None = None

    async def talk(self, address: str, pcm: bytes) -> None:
        async with connect(f"ws://{address}/v1/realtime?model=m", max_size=None) as socket:
            self.client = Client(socket)
            try:
                await self.client.until("session.created")
                await self.client.update(**TRANSCRIBED)
                while True:
                    await self.client.speak(pcm)
                    await self.client.until("response.done", 30)
            except websockets.ConnectionClosed:
                self.code = socket.close_code

    def counts(self) -> Counter[str]:
        assert self.client
        return Counter(self.client.types())


@pytest.fixture(scope="module")
def unbroken() -> Iterator[str]:
    """The same engines in this process, which nobody stops."""
    there = models(transcriber=LocalReplicaSet(sim=sim_transcriber(**TRANSCRIBER)))
    with served(given=there) as address:
        yield address


def expected(unbroken: str, pcm: bytes, audio_ms: int) -> str:
    """The words of that much of the speech, over and over."""
    looped = pcm * (audio_ms * 32 // len(pcm) + 1)
    sent: list[Any] = []
    for number, chunk in enumerate(chunks(looped[: audio_ms * 32])):
        sent += [chunk, 0.1] if number % 100 == 99 else [chunk]  # not too far ahead
    events, code = converse(unbroken, *sent)
    assert code == 1000 and not of("error", events)
    return words(events)


def assert_nothing_is_lost(heard: Heard, unbroken: str, pcm: bytes) -> None:
    assert not of("error", heard.events) and heard.events[-1]["type"] == "closed"
    assert words(heard.events) == expected(unbroken, pcm, heard.audio_ms) != ""


async def refused(address: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=5) as client:
        return await client.get("/v1/ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_no_word_of_twenty_sessions_and_five_conversations(
    tmp_path: Path, talk: bytes, speech: bytes, unbroken: str, number: signal.Signals
) -> None:
    hearing = [Heard() for _ in range(20)]
    talkers = [Talker() for _ in range(5)]
    leaving, staying = asyncio.Event(), asyncio.Event()

    async def story(server: Server) -> None:
        async with asyncio.TaskGroup() as tasks:
            for at, heard in enumerate(hearing):
                stop = leaving if at < 5 else staying
                tasks.create_task(speaking(server.address, talk, stop, heard))
            for talker in talkers:
                tasks.create_task(talker.talk(server.address, at_24k(speech)))
            await until(lambda: all(of("partial", heard.events) for heard in hearing))
            await until(lambda: all(it.counts()["response.created"] for it in talkers))
            server.process.send_signal(number)
            began = time.monotonic()
            await until(lambda: all(of("draining", heard.events) for heard in hearing), 2)
            await assert_refuses_all(server)
            leaving.set()
            await asyncio.to_thread(server.process.wait, 40)
            assert TIMEOUT_S < time.monotonic() - began < TIMEOUT_S + 12

    with running(tmp_path, {**SIM, "drain": {"timeout_s": TIMEOUT_S}}) as server:
        ours = server.descendants()
        asyncio.run(story(server))
        assert server.process.returncode == 0, server.log.read_text()
    assert not psutil.wait_procs(ours, timeout=5)[1]
    assert [heard.code for heard in hearing] == [1000] * 5 + [1012] * 15
    for heard in hearing:
        (notice,) = of("draining", heard.events)
        assert notice == {"type": "draining", "deadline_ms": 6000, "resume": None}
        assert_nothing_is_lost(heard, unbroken, talk)
    for talker in talkers:
        counts = talker.counts()
        assert talker.code == 1012
        assert counts["input_audio_buffer.committed"] == counts[f"{TRANSCRIPTION}.completed"]
        assert counts["response.created"] == counts["response.done"] >= 2
        done = talker.client and talker.client.of("response.done")[-1]
        assert done and done["response"]["status"] == "completed"


TRANSCRIPTION = "conversation.item.input_audio_transcription"


async def assert_refuses_all(server: Server) -> None:
    """Not ready, and no new session: 503 with Retry-After."""
    async with httpx.AsyncClient(base_url=server.url, timeout=5) as client:
        answers = [
            await client.get("/v1/ready"),
            await client.post("/v1/audio/speech", json={"input": "Hi", "model": "m"}),
        ]
        assert (await client.get("/v1/health")).json()["status"] == "draining"
    for path in (PATH, "/ws", "/v1/realtime"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://{server.address}{path}")
        answers.append(refused.value.response)  # type: ignore[arg-type]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert all(answer.headers["Retry-After"] for answer in answers)
