"""Finding a process that owes an answer and does nothing for it: stopped, or asleep for good.

A busy one is left alone, however long it takes: it uses the processor, waits for it, or for a disk.
"""

import asyncio
from collections.abc import Callable

import psutil

LOOK_S = 1.5

STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def stopped(process: psutil.Process) -> bool:
    """By SIGSTOP, or a debugger."""
    try:
        return process.status() in STOPPED
    except psutil.Error:
        return False  # it has ended, which its pipes tell


class FreezeWatch:
    """From now until `end`; `found` is called once, within two or three looks."""

    def __init__(self, pid: int, found: Callable[[], None]) -> None:
        self._pid = pid
        self._found = found
        self._asleep_at: float | None = None
        """The processor time that it had had when it was last seen asleep."""
        self._next = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def end(self) -> None:
        self._next.cancel()

    def _look(self) -> None:
        if self._frozen():
            self._found()
        else:
            self._next = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _frozen(self) -> bool:
        try:
            process = psutil.Process(self._pid)
            status, times = process.status(), process.cpu_times()
        except psutil.Error:
            return False
        before, self._asleep_at = self._asleep_at, None
        if status in STOPPED:
            return True
        if status == psutil.STATUS_SLEEPING:
            self._asleep_at = times.user + times.system
        return before is not None and before == self._asleep_at
