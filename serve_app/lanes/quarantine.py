"""Finds the request that crashes its engine. Pure.

When a replica is lost, its requests are sent to another one. A request that was on two lost
replicas is a suspect. A single suspect is the culprit; of several, one at a time is tried, and the
one that is tried when the next replica is lost is the culprit. All other requests are answered.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

LOSSES = 2


class Quarantine(Generic[S]):
    """For the streams of one deployment."""

    def __init__(self) -> None:
        self._losses: dict[S, int] = {}
        self._waiting: deque[S] = deque()
        self._trial: S | None = None

    def lost(self, busy: Sequence[S]) -> S | None:
        """A replica was lost that owed answers to `busy`; returns the culprit once it is found."""
        for stream in busy:
            self._losses[stream] = self._losses.get(stream, 0) + 1
        suspects = [stream for stream in busy if self._losses[stream] >= LOSSES]
        culprit = self._trial if self._trial in suspects else None
        culprit = suspects[0] if len(suspects) == 1 else culprit
        self._waiting += [stream for stream in suspects if stream not in (culprit, *self._waiting)]
        if culprit is not None:
            self.cleared(culprit)
        return culprit

    def must_wait(self, stream: S) -> bool:
        """It is a suspect, and another one is being tried."""
        return stream in self._waiting

    def next_trial(self) -> S | None:
        """The next suspect to attach, if none is being tried."""
        if self._trial is None and self._waiting:
            self._trial = self._waiting.popleft()
            return self._trial
        return None

    def cleared(self, stream: S) -> None:
        """It was answered, or it left its lane."""
        self._losses.pop(stream, None)
        if self._trial == stream:
            self._trial = None
        if stream in self._waiting:
            self._waiting.remove(stream)
