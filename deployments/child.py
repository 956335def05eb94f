"""A process of its own for an engine that cannot share one: it is spoken to in frames over pipes.

The child is a Python function; its stdout carries frames (`framing`), and it ends when its stdin
does, so it never outlives the replica. A child may parse hostile input: what it says is bounded
here, and its reader decodes it as typed data.
"""

import asyncio
import contextlib
import os
import sys

from deployments.framing import FrameTooLong, read_frame
from deployments.frozen import FreezeWatch
from deployments.interfaces import EngineFailed

LEAST_NICE = 19

LONGEST_ANSWER = 16 << 20
"""Bytes of one frame from a child: far above any engine's words or a sentence's piece of speech."""

GONE = (OSError, RuntimeError, asyncio.IncompleteReadError)
"""What a pipe raises when its process has died: asyncio's own loop `ConnectionError`, uvloop a
bare `RuntimeError` ("the handler is closed")."""


def give_way() -> None:
    """From now on this process runs when nobody else wants the processor (SCHED_IDLE, where the
    system has it)."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(LEAST_NICE)


class Child:
    """The parent's end. `name` is what a failure calls it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    @classmethod
    async def start(
        cls, name: str, module: str, timeout_s: float, gives_way: bool = False
    ) -> tuple["Child", bytes]:
        """Run `module.main()`; the child and the first frame it says. Raises `EngineFailed`."""
        first = "from deployments.child import give_way; give_way(); " if gives_way else ""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"{first}from {module} import main; main()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        child = cls(name, process)
        try:
            async with asyncio.timeout(timeout_s):
                return child, await child.read()
        except (TimeoutError, EngineFailed) as error:
            await child.stop()
            raise EngineFailed(f"the {name} process does not start") from error

    async def write(self, data: bytes) -> None:
        """Raises `EngineFailed`."""
        assert self._process.stdin
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except GONE as error:
            raise EngineFailed(f"the {self._name} process died") from error

    async def read(self) -> bytes:
        """The body of the next frame, which the process owes: it is killed when it is found frozen.
        Raises `EngineFailed`."""
        assert self._process.stdout
        watch = FreezeWatch(self._process.pid, self.kill)
        try:
            return await read_frame(self._process.stdout, LONGEST_ANSWER)
        except GONE as error:
            raise EngineFailed(f"the {self._name} process died") from error
        except FrameTooLong as error:
            raise EngineFailed(f"the {self._name} process sent an invalid answer") from error
        finally:
            watch.end()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """Kill it, and return when it is gone."""
        self.kill()
        assert self._process.stdout
        unread = self._process.stdout.read()  # `wait` alone never returns while it fills a pipe
        await asyncio.gather(unread, return_exceptions=True)
        await self._process.wait()
