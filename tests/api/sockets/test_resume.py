"""A connection that is lost, and the session that continues at another server, with real sockets.

These tests have their own small client, which keeps the audio and shows the newest token.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import soxr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from serve_app.config import Config
from serve_app.security.signing import SigningKeys
from tests.api.sockets.test_live_socket import PATH, converse, of
from tests.fakes import models, served
from tests.waiting import until

KEYS = SigningKeys([b"k" * 32])


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Two that know nothing of each other but the key."""
    with served(given=models(keys=KEYS)) as one, served(given=models(keys=KEYS)) as other:
        yield [one, other]


@dataclass
class Talker:
    """Sends `pcm` in chunks of 100 ms, and breaks its connection after some of them."""

    servers: list[str]
    pcm: bytes
    rate: int = 16_000
    start: dict[str, Any] = field(default_factory=dict)
    pace_s: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    token: str = ""
    keep_from: int = 0
    """In ms."""

    async def run(self, *breaks: int) -> None:
        for number, end in enumerate(breaks):
            await self.connection(number, end)
        await self.connection(len(breaks), None)

    async def connection(self, number: int, end: int | None) -> None:
        """Up to chunk `end`, or to the end of the session."""
        address = self.servers[number % len(self.servers)]
        socket = await connect(f"ws://{address}{PATH}", max_size=None)
        begin = {"resume": self.token} if number else self.start
        await socket.send(json.dumps({"type": "start", **begin}))
        await socket.recv()
        hello = json.loads(await socket.recv())
        assert hello["type"] == "session" and self.on_event(hello)
        assert number == 0 or hello["resumed_from_ms"] == self.keep_from
        reading = asyncio.create_task(self.read(socket))
        await self.send(socket, end)
        if end is None:
            await socket.send('{"type":"stop"}')
        else:
            socket.transport.abort()
        await asyncio.wait_for(reading, 60)

    async def send(self, socket: ClientConnection, end: int | None) -> None:
        size = self.rate // 10 * 2
        begin = self.keep_from * self.rate // 1000 * 2
        for at in range(begin, len(self.pcm) if end is None else end * size, size):
            await socket.send(self.pcm[at : at + size])
            await asyncio.sleep(self.pace_s)

    async def read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                self.on_event(json.loads(frame))
        except ConnectionClosed:
            pass

    def on_event(self, event: dict[str, Any]) -> bool:
        assert event["type"] != "error", event
        self.events.append(event)
        self.token = event.get("resume", self.token)
        assert event.get("resume_from_ms", self.keep_from) >= self.keep_from
        self.keep_from = event.get("resume_from_ms", self.keep_from)
        return True


KEPT = ("utterance", "start_ms", "end_ms", "text", "words")


def finals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: event[name] for name in KEPT} for event in of("final", events)]


def said(talker: Talker, *breaks: int) -> list[dict[str, Any]]:
    asyncio.run(talker.run(*breaks))
    return finals(talker.events)


@pytest.fixture(scope="module")
def long_talk(talk: bytes) -> bytes:
    """With noise, to which a VAD adapts, and a long silence."""
    whole = np.frombuffer(talk + bytes(32_000 * 8) + talk, "<i2")
    noise = np.random.default_rng(2).normal(0, 30, len(whole))
    return (whole + noise).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def unbroken(servers: list[str], long_talk: bytes) -> list[dict[str, Any]]:
    told = said(Talker(servers, long_talk))
    assert len(told) >= 8
    return told


@pytest.mark.parametrize("seed", range(8))
def test_broken_anywhere_it_says_what_the_unbroken_one_says(
    servers: list[str], long_talk: bytes, unbroken: list[dict[str, Any]], seed: int
) -> None:
    """Every word, time and number; the simulated engine hears each moved sample."""
    chunks = len(long_talk) // 3200
    breaks = sorted(random.Random(seed).sample(range(chunks), 1 + seed % 3))
    talker = Talker(servers, long_talk, pace_s=0.001)
    assert said(talker, *breaks) == unbroken
    closed = talker.events[-1]["metrics"]
    assert closed["finals"] == len(unbroken) and closed["audio_ms"] == len(long_talk) // 32


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_other_rates_continue_at_the_same_sample(
    servers: list[str], long_talk: bytes, rate: int
) -> None:
    samples = np.frombuffer(long_talk, "<i2")[: 16_000 * 30]
    pcm = soxr.resample(samples, 16_000, rate).astype("<i2").tobytes()
    whole = said(Talker(servers, pcm, rate, {"sample_rate": rate}))
    broken = said(Talker(servers, pcm, rate, {"sample_rate": rate}, 0.001), 95, 220)
    assert [it["words"] for it in broken] == [it["words"] for it in whole] != []


def test_an_older_connection_is_closed(servers: list[str], speech: bytes) -> None:
    async def go() -> None:
        url = f"ws://{servers[0]}{PATH}"
        async with connect(url) as old, connect(url) as new:
            token = json.loads(await old.recv())["resume"]
            await new.send(json.dumps({"type": "start", "resume": token}))
            with pytest.raises(ConnectionClosed):
                await old.recv()
            assert (old.close_code, old.close_reason) == (1008, "session_resumed")
            for chunk in (speech, '{"type":"stop"}'):
                await new.send(chunk)
            assert of("final", [json.loads(frame) async for frame in new])

    asyncio.run(go())


def test_a_session_that_nobody_else_continues_is_left_alone(servers: list[str]) -> None:
    """Names that clients give are not unique."""
    named = json.dumps({"type": "start", "session_id": "mine"})

    async def go() -> None:
        url = f"ws://{servers[0]}{PATH}"
        async with connect(url) as one, connect(url) as other, connect(url) as third:
            for socket in (one, other):
                await socket.send(named)
                await socket.recv()
            token = json.loads(await other.recv())["resume"]
            await third.send(json.dumps({"type": "start", "resume": token}))
            await until(lambda: other.close_code == 1008)
            assert one.close_code is None

    asyncio.run(go())


def test_a_token_of_another_server_is_refused_and_a_new_session_can_begin(
    servers: list[str], speech: bytes
) -> None:
    with served() as stranger:
        events, _ = converse(stranger, stop=True)
    resume = json.dumps({"type": "start", "resume": events[0]["resume"]})
    events, code = converse(servers[0], resume, '{"type":"start"}', speech)
    assert [event["code"] for event in of("error", events)] == ["resume_refused"]
    assert of("final", events) and code == 1000


def test_silence_can_be_resumed_without_its_beginning(servers: list[str]) -> None:
    events, _ = converse(servers[0], *[bytes(32_000)] * 12)
    told = [(it["audio_ms"], it["resume_from_ms"]) for it in of("resumable", events)]
    assert told == [(5_000, 4_000), (10_000, 9_000)]


def test_a_recorded_session_has_no_tokens(servers: list[str]) -> None:
    events, _ = converse(servers[0], path=f"{PATH}?transcription=none", stop=True)
    assert all("resume" not in event for event in events)


def test_metrics_count_what_was_resumed() -> None:
    with served(Config(profile="sim"), models(keys=KEYS)) as address:
        import httpx2 as httpx

        asyncio.run(Talker([address], bytes(64_000)).run(3))
        text = httpx.get(f"http://{address}/v1/metrics").text
    assert "sessions_resumed" in text
