"""How loaded lanes and the replicas behind them are: what admission decides by. Pure."""

from collections import deque
from typing import NamedTuple


class Load(NamedTuple):
    """A model replica's own report, twice a second."""

    busy: float = 0.0
    """The share of the time in which it worked, from 0 to 1."""
    waiting: int = 0
    """Utterances or requests that its engine has not begun."""


class LaneSignals(NamedTuple):
    """Of the last second; the worst of the lanes."""

    round_trip_s: float = 0.0
    """From sending a batch until its replica has taken it."""
    busy: float = 0.0
    waiting: int = 0


class BusyTime:
    """Time with work in progress, be it one piece of work or several at once."""

    def __init__(self, now: float, cpu_s: float) -> None:
        self._read_at = now
        self._cpu_s = cpu_s
        self._spent = 0.0
        self._since = now
        self._running = 0

    def begin(self, now: float) -> None:
        if not self._running:
            self._since = now
        self._running += 1

    def end(self, now: float) -> None:
        self._running -= 1
        if not self._running:
            self._spent += now - self._since

    def share(self, now: float, cpu_s: float) -> float:
        """Of the time since the last call. `cpu_s`: processor time that this thread has had; it
        counts where it is more, because reading and writing are work, too."""
        if self._running:
            self._spent += now - self._since
            self._since = now
        spent = max(self._spent, cpu_s - self._cpu_s)
        share = min(1.0, spent / max(now - self._read_at, 1e-6))
        self._read_at, self._cpu_s, self._spent = now, cpu_s, 0.0
        return share


class RecentMost:
    """The largest value of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._values: deque[tuple[float, float]] = deque()
        """Falling: a value hides smaller ones before it."""

    def add(self, now: float, value: float) -> None:
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now, value))

    def read(self, now: float) -> float:
        while self._values and self._values[0][0] < now - self._seconds:
            self._values.popleft()
        return self._values[0][1] if self._values else 0.0
