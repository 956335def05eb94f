"""Waiting in tests: for something to happen, or to see that nothing does."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.01


def wait_for(condition: Callable[[], T], seconds: float = 15.0, every_s: float = LOOK_S) -> T:
    """What `condition` returns once that is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(every_s)
    return found


def timed(what: str, action: Callable[[], object]) -> None:
    """Do it, and print how long it took."""
    began = time.monotonic()
    action()
    print(f"{what} after {time.monotonic() - began:.1f} s")


def await_listening(
    port: int, process: subprocess.Popen[bytes], seconds: float = 30.0, host: str = "127.0.0.1"
) -> None:
    """Until somebody listens on the port of this machine; fails if the process ends."""

    def listening() -> bool:
        assert process.poll() is None, "it did not start"
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return probe.connect_ex((host, port)) == 0

    wait_for(listening, seconds)


async def until(condition: Callable[[], T], seconds: float = 15.0) -> T:
    """The same, while the event loop goes on."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(LOOK_S)
    return found


def settled(value: Callable[[], T], quiet_s: float = 0.3, seconds: float = 10.0) -> T:
    """`value`, once it has not changed for `quiet_s`; fails if it goes on changing.

    That nothing happens any more has no event to wait for: looking for a while is the only way.
    """
    deadline, last, since = time.monotonic() + seconds, value(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < deadline, f"it still changes after {seconds} s: {last}"
        time.sleep(LOOK_S)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last


async def unchanged(value: Callable[[], T], seconds: float = 0.2, after_s: float = 0.0) -> T:
    """`value`, which must not change for `seconds`, while the event loop goes on.

    `after_s` is what is granted first, to an engine that stops after its present step.
    """
    await asyncio.sleep(after_s)
    before, deadline = value(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        assert value() == before
    return before
