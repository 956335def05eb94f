"""Counts requests in a sliding window of one minute. Pure.

The count of the minute before fades out while the present minute passes, as with the strategy of
the same kind in the library `limits`, which counts in Redis for all replicas. In memory, the
library takes ten times as long, and needs a thread, or awaits: a handshake can do neither.
"""

import bisect
import math

WINDOW_S = 60.0


class RequestWindow:
    """`now` is in seconds of any monotonic clock."""

    __slots__ = ("_before", "_began", "_count", "_elsewhere", "_seen")

    def __init__(self) -> None:
        self._began = self._seen = float("-inf")
        self._before = self._count = 0
        self._elsewhere = 0.0

    def used(self, now: float) -> float:
        """Here and elsewhere."""
        here = self._count + self._before * _rest(now - self._began)
        if now - self._began >= WINDOW_S:  # nothing has come in the present minute
            here = self._count * _rest(now - self._began - WINDOW_S)
        return here + self._elsewhere * _rest(now - self._seen)

    def add(self, now: float) -> None:
        age = now - self._began
        if age >= 2 * WINDOW_S:
            self._began, self._before, self._count = now, 0, 0
        elif age >= WINDOW_S:
            self._began, self._before, self._count = self._began + WINDOW_S, self._count, 0
        self._count += 1

    def take_back(self) -> None:
        """The last one was not let in after all."""
        self._count = max(0, self._count - 1)

    def observed(self, all_: float, now: float) -> None:
        """So much has been used by all replicas."""
        self._elsewhere = 0.0
        self._elsewhere, self._seen = max(0.0, all_ - self.used(now)), now

    def forget_others(self) -> None:
        self._elsewhere = 0.0

    def fits(self, most: int, now: float) -> bool:
        return self.used(now) + 1 <= most

    def wait_s(self, most: int, now: float) -> int:
        """Whole seconds until one more fits."""
        seconds = range(int(2 * WINDOW_S))
        return bisect.bisect_left(seconds, True, key=lambda s: self.fits(most, now + s))

    def reset_s(self, now: float) -> int:
        """Whole seconds until nothing is used."""
        ends = [now]
        if self._count or self._before:
            ends.append(self._began + (2 if self._count else 1) * WINDOW_S)
        if self._elsewhere:
            ends.append(self._seen + WINDOW_S)
        return math.ceil(max(ends) - now)


def _rest(age_s: float) -> float:
    """How much of a minute's count is left."""
    return min(1.0, max(0.0, 1.0 - age_s / WINDOW_S))
