"""How late this replica is, from 0: at 1 something must be left out. Pure.

Each measurement counts with its smallest value of the last second: a single late moment is no
overload, and a delay that never goes away is one (CoDel).
"""

from collections import deque
from typing import NamedTuple

WINDOW_S = 1.0
SOJOURN_S = 0.15
"""Audio that waits longer than this, beyond the engine's own time, is late."""

LAG_S = 0.07
"""An event loop that comes later than this to what it should do is too busy."""


class Delays(NamedTuple):
    """In seconds."""

    lag: float
    """How late the event loop was."""
    lanes: float
    """How long the slowest lane takes for a batch: from sending it until its replica has it."""


class Pressure:
    """`value` below 0.5 is calm; `reason` says what is late."""

    def __init__(self) -> None:
        self.value = 0.0
        self.reason = ""
        self._recent: deque[tuple[float, Delays]] = deque()

    def measured(self, now: float, delays: Delays) -> None:
        self._recent.append((now, delays))
        while len(self._recent) > 1 and self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()
        lag = min(each.lag for _, each in self._recent)
        sojourn = min(sum(each) for _, each in self._recent)
        busy, slow = lag / LAG_S, sojourn / SOJOURN_S
        self.value, self.reason = max((busy, "busy_ingress"), (slow, "slow_models"))
