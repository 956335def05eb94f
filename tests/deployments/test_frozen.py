"""Processes and engines that owe an answer and do nothing for it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from deployments.frozen import LOOK_S, FreezeWatch
from deployments.interfaces import (
    Emit,
    EngineHypothesis,
    Options,
    Speech,
    SpeechOptions,
    Utterance,
)
from deployments.transcriber import Transcriber
from deployments.vllm_engine import Vllm
from tests.waiting import unchanged, until

FOUND_S = 3 * LOOK_S + 0.5


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline()
            yield process
        finally:
            process.kill()


SAY = "print(flush=True);"
ASLEEP = f"import time; {SAY} time.sleep(60)"
BUSY = f"import time; {SAY} exec('while True: time.sleep(0.2); sum(range(200_000))')"


async def found(process: subprocess.Popen[bytes]) -> bool:
    seen: list[int] = []
    watch = FreezeWatch(process.pid, lambda: seen.append(1))
    try:
        await until(lambda: bool(seen), FOUND_S)
    except AssertionError:
        return False
    finally:
        watch.end()
    return True


@pytest.mark.parametrize(
    ("code", "stop", "frozen"),
    [(ASLEEP, False, True), (BUSY, True, True), (BUSY, False, False)],
    ids=["asleep", "stopped", "busy"],
)
def test_a_process_is_frozen_when_it_is_stopped_or_sleeps_for_good(
    code: str, stop: bool, frozen: bool
) -> None:
    with python(code) as process:
        if stop:
            process.send_signal(signal.SIGSTOP)
        assert asyncio.run(found(process)) is frozen


def test_an_engine_on_vllm_ends_when_one_of_its_processes_is_stopped() -> None:
    async def go(process: subprocess.Popen[bytes]) -> None:
        engine = Vllm(60.0, {})
        engine._processes = [psutil.Process(process.pid)]
        watch = asyncio.create_task(engine._watch_stops())
        process.send_signal(signal.SIGSTOP)
        assert "stopped" in await asyncio.wait_for(engine.wait_dead(), FOUND_S)
        await watch
        await asyncio.to_thread(process.wait, 5)

    with python(ASLEEP) as process:
        asyncio.run(go(process))


class Mute:
    """Takes audio, and answers when it is told to."""

    name = "mute"
    languages: tuple[str, ...] | None = None
    revises = False
    options: Options = frozenset()
    stall_s = 0.2

    async def start(self, emit: Emit) -> None:
        self.emit = emit

    async def feed(self, batch: Sequence[Utterance]) -> None:
        self.fed = [utterance.key for utterance in batch]

    async def forget(self, keys: Sequence[Hashable]) -> None: ...

    async def stop(self) -> None: ...


def piece(ended: bool) -> Speech:
    return Speech(1, 0, b"12", ended, SpeechOptions())


def test_an_engine_is_stuck_when_it_owes_a_final_and_is_silent_for_longer_than_it_says() -> None:
    async def go() -> None:
        engine = Mute()
        model = Transcriber(engine)
        listening: Any = model.listen("lane")
        await anext(listening)
        await model.exchange("lane", [piece(False)], [])
        assert await unchanged(model.stalled, 0.4) is False, "the person still speaks"
        await model.exchange("lane", [piece(True)], [])
        await until(model.stalled)
        engine.emit([EngineHypothesis(engine.fed[0], 1, (), False)])
        assert not model.stalled(), "it works"
        await until(model.stalled)
        engine.emit([EngineHypothesis(engine.fed[0], 1, (), True)])
        assert await unchanged(model.stalled, 0.4) is False, "it owes nothing"
        await model.exchange("lane", [piece(True)], [])
        await model.exchange("lane", [], [1])
        assert await unchanged(model.stalled, 0.4) is False, "the client has left"
        await listening.aclose()

    asyncio.run(go())
