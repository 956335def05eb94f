"""The engines that write and speak, and that cancelling reaches them: counted, not believed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from deployments.chat import Chat
from deployments.chat.eliza import Eliza, reflect, respond
from deployments.chat.openai import CircuitBreaker, OpenAI
from deployments.chat.sim import SimChat
from deployments.interfaces import (
    ENGINE_FAILED,
    NO_OPTIONS,
    VOICE_RATE,
    ChatDelta,
    ChatOptions,
    ChatRequest,
    EngineFailed,
    Message,
    SpeechRequest,
    Tool,
)
from deployments.requests import RequestModel
from deployments.speaker import Speaker
from deployments.speaker.clauses import MAX_CHARS, split
from deployments.speaker.espeak import Espeak
from deployments.speaker.sim import SimSpeaker
from tests.server import children
from tests.waiting import settled, unchanged, until

HELLO = ChatRequest(1, (Message("user", "hello"),))


async def all_of(answers: AsyncIterator[Any]) -> list[Any]:
    return [answer async for answer in answers]


# Requests in lanes.


def test_a_request_that_is_left_stops_its_engine() -> None:
    async def go() -> None:
        sim = SimChat(1, 1, 1000)
        chat = Chat(sim)
        listening = chat.listen("lane")
        await anext(listening)
        await chat.exchange("lane", [HELLO, HELLO._replace(session=2)], [])
        assert await anext(listening)
        await until(lambda: sim.generated() > 10)
        await chat.exchange("lane", [], [1, 2])
        await asyncio.sleep(0)
        assert await unchanged(sim.generated) > 10 and chat.stats()["running"] == 0

    asyncio.run(go())


def test_a_lane_that_closes_stops_its_engines() -> None:
    async def go() -> None:
        sim = SimSpeaker(1, 1.0, 2.0)
        speaker = Speaker(sim)
        async with aclosing(speaker.listen("lane")) as listening:  # type: ignore[type-var]
            await anext(listening)
            await speaker.exchange("lane", [SpeechRequest(1, "a b c d e", "sim-low")], [])
            await anext(listening)
        await asyncio.sleep(0)
        assert await unchanged(sim.generated) > 0

    asyncio.run(go())


def test_a_request_that_was_left_before_it_began_never_begins() -> None:
    async def go() -> None:
        chat = Chat(SimChat(0, 0, 10))
        await anext(chat.listen("lane"))
        await chat.exchange("lane", [HELLO], [1])
        assert chat.stats() == {"made": 0, "running": 0}

    asyncio.run(go())


def test_an_engine_waits_for_a_reader_that_is_slow() -> None:
    async def go() -> None:
        sim = SimChat(0, 0, 100_000)
        chat = Chat(sim)
        listening = chat.listen("lane")
        await anext(listening)
        await chat.exchange("lane", [HELLO], [])
        assert 0 < await asyncio.to_thread(settled, sim.generated) < 1000, (
            "bounded, though nobody reads"
        )
        await anext(listening)

    asyncio.run(go())


class Broken:
    name = "broken"

    options = NO_OPTIONS

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def generated(self) -> int:
        return 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        yield ChatDelta(request.session, "so far ")
        raise ZeroDivisionError


def test_an_engine_that_breaks_says_so_and_nothing_of_its_inside() -> None:
    async def go() -> list[ChatDelta]:
        chat: RequestModel[Any] = Chat(Broken())
        listening = chat.listen("lane")
        await anext(listening)
        await chat.exchange("lane", [HELLO], [])
        told: list[ChatDelta] = []
        while not (told and told[-1].failure):
            told += await anext(listening)
        return told

    told = asyncio.run(go())
    assert [answer.failure for answer in told] == [None, ENGINE_FAILED]


# Chat.


@pytest.mark.parametrize(
    ("said", "turn", "expected"),
    [
        ("who are you", 0, "I am ELIZA"),
        ("I am sad about my cat", 0, "How long have you been sad about your cat?"),
        ("I am sad about my cat", 1, "Why are you sad about your cat?"),
        ("My mother hates me", 0, "Tell me more about your mother."),
        ("I need a holiday.", 0, "Why do you need a holiday?"),
        ("are you a robot", 0, "I am a program"),
    ],
)
def test_eliza_turns_things_around(said: str, turn: int, expected: str) -> None:
    assert expected in respond(said, turn)
    assert reflect("i love my dog, you know") == "you love your dog"


def test_eliza_knows_no_tools_and_says_so() -> None:
    async def go() -> None:
        pieces = await all_of(Eliza().reply(HELLO))
        assert "".join(p.text for p in pieces) == "Hello. What is on your mind?"
        assert pieces[-1].finish == "stop" and pieces[-1].tokens == (1, 6)
        with pytest.raises(EngineFailed, match="cannot call tools"):
            options = ChatOptions((Tool("f", "", "{}"),), "required")
            await all_of(Eliza().reply(HELLO._replace(options=options)))

    asyncio.run(go())


def openai(port: int, **changed: Any) -> OpenAI:
    return OpenAI(
        **{
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": "m",
            "api_key_variable": "VOXRAY_TEST_KEY",
            "timeout_s": 1.0,
            "connect_timeout_s": 1.0,
            "retries": 2,
            "breaker_failures": 2,
            "breaker_open_s": 0.2,
            **changed,
        }
    )


class Upstream:
    """An OpenAI-compatible server on a real socket, scripted by a list of behaviours."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.asked: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> "Upstream":
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.answer(reader, writer)
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.asked.append(json.loads(await reader.readexactly(length)) | {"head": head.decode()})
        behaviour = self.script.pop(0) if self.script else "reply"
        if behaviour.isdigit():
            answer = f"HTTP/1.1 {behaviour} X\r\ncontent-length: 2\r\nretry-after-ms: 1\r\n\r\n"
            writer.write(answer.encode() + b"{}")
        elif behaviour != "mute":
            await self.stream(reader, writer, behaviour)
        else:
            await reader.read()

    async def stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behaviour: str
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for text in ("Hel", "lo."):
            self.chunk(writer, {"delta": {"content": text}, "finish_reason": None})
        await writer.drain()
        if behaviour == "hang":
            await reader.read()
            self.gone.set()
        elif behaviour == "reply":
            call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
            self.chunk(writer, {"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"})
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            writer.write(f"data: {json.dumps(self.shape([], usage))}\n\ndata: [DONE]\n\n".encode())
        await writer.drain()

    def chunk(self, writer: asyncio.StreamWriter, choice: dict[str, Any]) -> None:
        writer.write(f"data: {json.dumps(self.shape([{'index': 0, **choice}], None))}\n\n".encode())

    def shape(self, choices: list[Any], usage: Any) -> dict[str, Any]:
        head = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
        return {**head, "choices": choices, "usage": usage}


def test_openai_streams_with_tools_usage_and_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_TEST_KEY", "sk-secret")

    async def go() -> None:
        async with Upstream() as upstream:
            engine = openai(upstream.port)
            await engine.start()
            options = ChatOptions((Tool("f", "d", '{"type": "object"}'),), "f", 9, 0.5)
            asked_ = HELLO._replace(options=options, trace="00-trace")
            pieces = await all_of(engine.reply(asked_))
            await engine.stop()
        assert "".join(p.text for p in pieces) == "Hello."
        assert pieces[-1].finish == "tool_calls"
        assert [p.tokens for p in pieces] == [(0, 1), (0, 2), (0, 3), (7, 3)]
        assert [c.name for p in pieces for c in p.calls] == ["f"]
        (asked,) = upstream.asked
        assert asked["messages"] == [{"role": "user", "content": "hello"}]
        assert asked["tool_choice"]["function"]["name"] == "f" and asked["max_tokens"] == 9
        assert "Bearer sk-secret" in asked["head"] and "top_p" not in asked
        assert "traceparent: 00-trace\r\n" in asked["head"]

    asyncio.run(go())


def test_openai_tries_again_then_fails_then_rests() -> None:
    async def go() -> None:
        async with Upstream("500", "503", "reply", *["500"] * 6) as upstream:
            engine = openai(upstream.port)
            await engine.start()
            pieces = await all_of(engine.reply(HELLO))
            assert len(upstream.asked) == 3 and pieces[0].text == "Hel"
            for _ in range(2):
                with pytest.raises(EngineFailed, match="the chat server answered 500"):
                    await all_of(engine.reply(HELLO))
            asked = len(upstream.asked)
            with pytest.raises(EngineFailed, match="keeps failing"):
                await all_of(engine.reply(HELLO))
            assert len(upstream.asked) == asked, "nobody was asked: the breaker is open"
            await asyncio.sleep(0.25)  # the breaker closes by the clock
            assert (await all_of(engine.reply(HELLO)))[0].text == "Hel"
            await engine.stop()

    asyncio.run(go())


@pytest.mark.parametrize("behaviour", ["mute", "cut"])
def test_openai_that_says_nothing_or_breaks_off(behaviour: str) -> None:
    async def go() -> None:
        async with Upstream(behaviour) as upstream:
            engine = openai(upstream.port, timeout_s=0.3, retries=0)
            await engine.start()
            with pytest.raises(EngineFailed):
                await all_of(engine.reply(HELLO))
            await engine.stop()

    asyncio.run(go())


def test_closing_a_reply_hangs_up_on_the_server() -> None:
    async def go() -> None:
        async with Upstream("hang") as upstream:
            engine = openai(upstream.port, timeout_s=30)
            await engine.start()
            async with aclosing(engine.reply(HELLO)) as pieces:  # type: ignore[type-var]
                assert (await anext(pieces)).text == "Hel"
            await asyncio.wait_for(upstream.gone.wait(), 2)
            await engine.stop()

    asyncio.run(go())


def test_openai_needs_a_model() -> None:
    with pytest.raises(EngineFailed, match="model is not set"):
        asyncio.run(openai(1, model="").start())


def test_the_breaker_lets_one_try() -> None:
    now = [0.0]
    breaker = CircuitBreaker(1, 10.0, lambda: now[0])
    breaker.failed()
    with pytest.raises(EngineFailed):
        breaker.check()
    now[0] = 11.0
    breaker.check()
    with pytest.raises(EngineFailed):
        breaker.check()
    breaker.succeeded()
    breaker.check()


# Speakers.


@pytest.mark.models
def test_espeak_speaks_in_many_voices() -> None:
    async def go() -> None:
        engine = Espeak()
        await engine.start()
        voices = {voice.id: voice for voice in await engine.voices()}
        assert len(voices) > 400 and voices["en-us+f3"].gender == "female"
        assert {"en-us", "en-gb", "fr-fr", "de", "cmn"} <= {v.language for v in voices.values()}
        lengths = {}
        for voice, speed in (("en-us", 1.0), ("en-us", 2.0), ("en-gb+f3", 1.0), ("de", 1.0)):
            pieces = await all_of(
                engine.speak(SpeechRequest(0, "One two three four.", voice, speed))
            )
            samples = np.frombuffer(b"".join(pieces), "<i2")
            assert np.abs(samples).max() > 3000
            lengths[voice, speed] = len(samples) / VOICE_RATE
        assert 0.5 < lengths["en-us", 1.0] < 3
        assert lengths["en-us", 2.0] < 0.75 * lengths["en-us", 1.0]
        with pytest.raises(EngineFailed, match="no voice 'nobody'"):
            await all_of(engine.speak(SpeechRequest(0, "hi", "nobody")))
        await engine.stop()

    asyncio.run(go())


@pytest.mark.models
def test_espeak_stops_within_a_sentence_when_it_is_closed() -> None:
    async def go() -> None:
        engine = Espeak()
        await engine.start()
        long = SpeechRequest(0, "This is a sentence. " * 50, "en-us")
        async with aclosing(engine.speak(long)) as pieces:  # type: ignore[type-var]
            await anext(pieces)
        assert await unchanged(engine.generated) < 3 * VOICE_RATE, "one of fifty sentences"
        assert await all_of(engine.speak(SpeechRequest(0, "Again.", "en-us")))
        await engine.stop()

    asyncio.run(go())


@pytest.mark.models
def test_an_espeak_process_that_dies_is_replaced() -> None:
    async def go() -> None:
        engine = Espeak()
        await engine.start()
        (child,) = children("espeak")
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="died"):
            await all_of(engine.speak(SpeechRequest(0, "hi", "en-us")))
        assert await all_of(engine.speak(SpeechRequest(0, "hi", "en-us")))
        await engine.stop()

    asyncio.run(go())


def test_an_engine_splits_text_at_every_mark_and_loses_nothing() -> None:
    text = "Hello there, you! It costs 3.5 euros.\n\nNo end " + "x" * 900
    pieces = split(text)
    assert pieces[:3] == ["Hello there,", "you!", "It costs 3.5 euros."]
    assert "".join(pieces).replace(" ", "") == "".join(text.split())
    assert max(map(len, pieces)) <= MAX_CHARS
