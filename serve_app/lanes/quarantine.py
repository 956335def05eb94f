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
    """Of the streams of one deployment."""

    def __init__(self) -> None:
        self._losses: dict[S, int] = {}
        self._waiting: deque[S] = deque()
        self._trial: S | None = None

    def lost(self, busy: Sequence[S]) -> S | None:
        """These were at work in a replica that was lost; the guilty one, if one is."""
        for stream in busy:
            self._losses[stream] = self._losses.get(stream, 0) + 1
        suspects = [stream for stream in busy if self._losses[stream] >= LOSSES]
        guilty = self._trial if self._trial in suspects else None
        guilty = suspects[0] if len(suspects) == 1 else guilty
        self._waiting += [stream for stream in suspects if stream not in (guilty, *self._waiting)]
        if guilty is not None:
            self.cleared(guilty)
        return guilty

    def must_wait(self, stream: S) -> bool:
        """It is not its turn to be tried."""
        return stream in self._waiting

    def next_trial(self) -> S | None:
        """Who may be attached now, alone among the suspects."""
        if self._trial is None and self._waiting:
            self._trial = self._waiting.popleft()
            return self._trial
        return None

    def cleared(self, stream: S) -> None:
        """It was answered, or it left."""
        self._losses.pop(stream, None)
        if self._trial == stream:
            self._trial = None
        if stream in self._waiting:
            self._waiting.remove(stream)
