"""Children that owe an answer and do nothing for it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deployments.frozen import LOOK_S, FreezeWatch
from tests.waiting import until

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
