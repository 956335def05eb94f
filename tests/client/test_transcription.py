"""What the Python client does beyond resuming: bounds, errors, and a clean end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from serve_app.client import (
    ConnectionResumed,
    Final,
    GaveUp,
    LiveTranscription,
    Reconnecting,
    SessionOver,
    TranscriptionEvent,
    Unreachable,
    link,
)
from tests.client.fake_server import FakeServer, Plan, samples, scripted
from tests.waiting import unchanged, until

NOBODY = "http://127.0.0.1:9"


def run(check: Callable[[FakeServer], Awaitable[None]], *script: Plan) -> None:
    async def scenario() -> None:
        async with scripted(*script) as fake:
            before = asyncio.all_tasks()
            await check(fake)
            await until(lambda: _clients(asyncio.all_tasks() - before) == [])

    asyncio.run(scenario())


def _clients(tasks: set["asyncio.Task[None]"]) -> list[str]:
    """Tasks of the client; the fake server has its own."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in tasks]
    return [name for name in names if name.startswith(("Link.", "LiveTranscription."))]


async def read(live: LiveTranscription) -> list[TranscriptionEvent]:
    return [event async for event in live]


def test_send_waits_while_the_buffer_is_full() -> None:
    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url, buffer_s=1) as live:
            sending = asyncio.create_task(live.send(samples(0, 2_000)))
            await unchanged(sending.done)
            assert not sending.done(), "nobody reads: nothing is connected, nothing is final"
            reading = asyncio.create_task(read(live))
            await sending
            live.finish()
            assert any(isinstance(event, Final) for event in await reading)
            with pytest.raises(SessionOver):
                await live.send(samples(0, 2_000))
        assert fake.wrong == []

    run(check)


def test_half_a_sample_is_refused() -> None:
    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            with pytest.raises(ValueError, match="whole samples"):
                await live.send(b"\0\0\0")

    run(check)


def test_errors_of_the_audio_reach_the_reader() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield samples(0, 100)
        raise ZeroDivisionError

    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            live.stream(broken())
            with pytest.raises(ZeroDivisionError):
                await read(live)

    run(check)


def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MUTE_S", 0.5)
    monkeypatch.setattr(link, "KEEPALIVE_S", 0.1)

    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            await live.send(samples(0, 1_000))
            events = []
            async for event in live:
                events.append(event)
                if isinstance(event, ConnectionResumed):
                    live.finish()
        assert [it.reason for it in events if isinstance(it, Reconnecting)] == ["no answer"]
        assert len(fake.starts) == 2 and fake.wrong == []

    run(check, Plan(mute_at_ms=800))


def test_a_session_without_audio_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MUTE_S", 0.3)
    monkeypatch.setattr(link, "KEEPALIVE_S", 0.05)

    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            reading = asyncio.create_task(read(live))
            await until(lambda: fake.asked >= 10)
            live.finish()
            events = await reading
        assert not any(isinstance(event, Reconnecting) for event in events)

    run(check)


def test_a_server_that_was_never_there_is_an_error_at_once() -> None:
    async def check(_: FakeServer) -> None:
        async with LiveTranscription(NOBODY) as live:
            with pytest.raises(Unreachable):
                await read(live)

    run(check)


def test_a_server_that_does_not_come_back_is_given_up() -> None:
    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url, patience_s=0.5) as live:
            await live.send(samples(0, 1_000))
            with pytest.raises(GaveUp):
                await read(live)
            with pytest.raises(GaveUp):  # and again: it does not come back to life
                await read(live)
            with pytest.raises(SessionOver):
                await live.send(samples(1_000, 1_100))

    run(check, Plan(cut_at_ms=500), *[Plan(refuse=503)] * 50)


def test_a_server_that_is_lost_at_the_very_beginning_is_waited_for() -> None:
    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            await live.send(samples(0, 1_000))
            live.finish()
            assert any(isinstance(event, Final) for event in await read(live))

    run(check, Plan(cut_at_ms=100), Plan(refuse=500))


@pytest.mark.parametrize("cut_at_ms", [None, 500])
def test_it_can_be_cancelled_at_any_time(cut_at_ms: int | None) -> None:
    """While it reads, and while it waits for a server."""

    async def check(fake: FakeServer) -> None:
        async def use() -> None:
            async with LiveTranscription(fake.url) as live:
                live.stream(_without_end())
                await read(live)

        using = asyncio.create_task(use())
        await until(lambda: len(fake.handshakes) >= (3 if cut_at_ms else 1))
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using

    run(check, Plan(cut_at_ms=cut_at_ms), *([Plan(refuse=503)] * 50 if cut_at_ms else []))


async def _without_end() -> AsyncIterator[bytes]:
    at = 0
    while True:
        yield samples(at, at + 100)
        at += 100
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("limit_s", [0.002, 0.0005])
def test_a_reader_may_stop_and_go_on(limit_s: float) -> None:
    """A time limit on one event loses none, be it shorter than a handshake."""

    async def check(fake: FakeServer) -> None:
        async with LiveTranscription(fake.url) as live:
            events: list[TranscriptionEvent] = []
            await live.send(samples(0, 3_000))
            live.finish()
            while True:
                try:
                    events.append(await asyncio.wait_for(anext(live), limit_s))
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
        assert [it.utterance for it in events if isinstance(it, Final)] == [0, 1]

    run(check, Plan(cut_at_ms=2_000))
