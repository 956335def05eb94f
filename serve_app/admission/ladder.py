"""What is left out for those inside, step by step, while there is too much to do. Pure.

Each level includes the ones before it. Finals are never left out. The ladder goes up while the
pressure is high, one step a second, and down soon after it is low; when a descent turns out to have
been too early, the next one waits longer.
"""

from enum import IntEnum


class Level(IntEnum):
    """What happens from this level on."""

    NORMAL = 0
    RECORDINGS_PAUSE = 1
    LARGER_BATCHES = 2
    CHANGED_PARTIALS = 3
    """Partials with the same words as the last are not sent."""
    FEWER_PARTIALS = 4
    """One every 300 ms."""
    FEWEST = 5
    """One every second, and no reply begins before the turn has ended."""


HIGH, LOW = 1.0, 0.5
UP_S = 1.0
DOWN_S = 0.2
CALM_S, MAX_CALM_S = 0.4, 10.0
"""How long the pressure must be low before the first step down."""

REGRET_S = 10.0
"""A step up this soon after one down means that the one down came too early."""

FORGET_S = 30.0


class Ladder:
    """`on(pressure, now)` with `now` in seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.level = Level.NORMAL
        self._calm_s = CALM_S
        self._calm_since: float | None = None
        self._up_at = self._down_at = float("-inf")

    def on(self, pressure: float, now: float) -> Level:
        if pressure >= LOW:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if pressure >= HIGH:
            self._up(now)
        elif self._calm_since is not None:
            self._down(now, now - self._calm_since)
        return self.level

    def _up(self, now: float) -> None:
        if self.level is Level.FEWEST or now - self._up_at < UP_S:
            return
        if now - self._down_at < REGRET_S:
            self._calm_s = min(MAX_CALM_S, self._calm_s * 2)
        self.level, self._up_at = Level(self.level + 1), now

    def _down(self, now: float, calm_s: float) -> None:
        if self.level is Level.NORMAL:
            if calm_s >= FORGET_S:
                self._calm_s = CALM_S
        elif calm_s >= self._calm_s and now - self._down_at >= DOWN_S:
            self.level, self._down_at = Level(self.level - 1), now
