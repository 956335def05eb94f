"""Which request ends its engine. Pure.

When a replica is lost, everything that it was at work on is asked of another. What was aboard of
two losses is suspect: if it is the only one, it is guilty; else the suspects are tried one at a
time, and the one that is alone aboard at the next loss is guilty. Everybody else is answered.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

LOSSES = 2


class Quarantine(Generic[S]):
    """Of the seats of one deployment."""

    def __init__(self) -> None:
        self._losses: dict[S, int] = {}
        self._waiting: deque[S] = deque()
        self._trial: S | None = None

    def lost(self, busy: Sequence[S]) -> S | None:
        """These were at work in a replica that was lost; the guilty one, if one is."""
        for seat in busy:
            self._losses[seat] = self._losses.get(seat, 0) + 1
        suspects = [seat for seat in busy if self._losses[seat] >= LOSSES]
        guilty = self._trial if self._trial in suspects else None
        guilty = suspects[0] if len(suspects) == 1 else guilty
        self._waiting += [seat for seat in suspects if seat not in (guilty, *self._waiting)]
        if guilty is not None:
            self.cleared(guilty)
        return guilty

    def must_wait(self, seat: S) -> bool:
        """It is not its turn to be tried."""
        return seat in self._waiting

    def next_trial(self) -> S | None:
        """Who may be seated now, alone among the suspects."""
        if self._trial is None and self._waiting:
            self._trial = self._waiting.popleft()
            return self._trial
        return None

    def cleared(self, seat: S) -> None:
        """It was answered, or it left."""
        self._losses.pop(seat, None)
        if self._trial == seat:
            self._trial = None
        if seat in self._waiting:
            self._waiting.remove(seat)
