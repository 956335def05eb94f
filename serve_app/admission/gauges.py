"""What this process and its machine have used of their processors, over the last second."""

import time
from collections import deque
from typing import NamedTuple

import psutil

WINDOW_S = 1.0


class _Reading(NamedTuple):
    at: float
    busy: float
    """Processor seconds of the machine, without those of low priority, which give way."""
    total: float
    thread: float
    """Processor seconds of this thread, which runs the event loop."""


class Gauges:
    """Read it in the thread of the event loop, several times a second."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque([_read()])

    def read(self) -> tuple[float, float]:
        """The busy shares of the machine and of this thread."""
        now = _read()
        self._readings.append(now)
        while len(self._readings) > 2 and self._readings[1].at <= now.at - WINDOW_S:
            self._readings.popleft()
        before = self._readings[0]
        machine = (now.busy - before.busy) / max(now.total - before.total, 1e-6)
        thread = (now.thread - before.thread) / max(now.at - before.at, 1e-6)
        return machine, thread


def _read() -> _Reading:
    times = psutil.cpu_times()
    at_rest = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "nice", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in user and nice
    total = sum(times) - guests
    return _Reading(time.monotonic(), total - at_rest, total, time.thread_time())
