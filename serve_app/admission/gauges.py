"""What this process and its machine have used of their processors, over the last second."""

import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import psutil

WINDOW_S = 1.0
GROUP = Path("/sys/fs/cgroup")
"""Of a container, as it sees itself (cgroup v2)."""


class _Reading(NamedTuple):
    at: float
    busy: float
    """Processor seconds used."""
    total: float
    """Processor seconds there were."""
    thread: float
    """Processor seconds of this thread, which runs the event loop."""


class Gauges:
    """Read it in the thread of the event loop, several times a second."""

    def __init__(self) -> None:
        self._quota = quota()
        self._readings: deque[_Reading] = deque([self._now()])

    def read(self) -> tuple[float, float]:
        """The busy shares of the machine, or of what this container may use of it, and of this
        thread."""
        now = self._now()
        self._readings.append(now)
        while len(self._readings) > 2 and self._readings[1].at <= now.at - WINDOW_S:
            self._readings.popleft()
        before = self._readings[0]
        machine = _share(now.busy - before.busy, now.total - before.total)
        return machine, _share(now.thread - before.thread, now.at - before.at)

    def _now(self) -> _Reading:
        at = time.monotonic()
        if self._quota is None:
            busy, total = _machine()
        else:
            busy, total = _used_in(GROUP), at * self._quota
        return _Reading(at, busy, total, time.thread_time())


def _share(busy: float, total: float) -> float:
    """From 0 to 1: the differences of sums can be a little beyond."""
    return min(1.0, max(0.0, busy / max(total, 1e-6)))


def cores() -> float:
    """Processors of this machine, or what this container may use of them."""
    return quota() or os.cpu_count() or 1.0


def quota(group: Path = GROUP) -> float | None:
    """The processors that a container may use; None where there is no limit."""
    try:
        most, period = (group / "cpu.max").read_text().split()
        return int(most) / int(period)
    except (OSError, ValueError):  # no container, another system, or "max"
        return None


def _used_in(group: Path) -> float:
    first = (group / "cpu.stat").read_text().split(maxsplit=2)
    return int(first[1]) / 1e6  # usage_usec


def _machine() -> tuple[float, float]:
    """Without processes of low priority, which give way."""
    times = psutil.cpu_times()
    at_rest = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "nice", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in user and nice
    total = sum(times) - guests
    return total - at_rest, total
