"""What waits for one thing, and what of it comes next. Pure."""

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

LIVE_FIRST = 9
"""After this many pieces of live work in a row, one piece of a waiting recording goes first, so
that no recording waits forever."""


class FairQueue(Generic[Item]):
    """Live work goes first, and then the lowest rank; see `FairShares`."""

    def __init__(self) -> None:
        self._order = itertools.count()
        self._live: list[tuple[float, int, Item]] = []
        self._batch: list[tuple[float, int, Item]] = []
        """Heaps."""
        self._passed_by = 0
        """Live pieces of work since recordings began to wait."""

    def __len__(self) -> int:
        return len(self._live) + len(self._batch)

    def put(self, item: Item, rank: float, batch: bool) -> None:
        """`batch`: part of a recording."""
        heapq.heappush(self._batch if batch else self._live, (rank, next(self._order), item))

    def take(self) -> Item:
        """The next one. Raises `IndexError` when nothing waits."""
        if self._batch and (not self._live or self._passed_by >= LIVE_FIRST):
            self._passed_by = 0
            return heapq.heappop(self._batch)[-1]
        self._passed_by = self._passed_by + 1 if self._batch else 0
        return heapq.heappop(self._live)[-1]

    def remove(self, gone: Callable[[Item], bool]) -> list[Item]:
        """Take out those that are `gone`."""
        found = []
        for heap in (self._live, self._batch):
            found += [entry[-1] for entry in heap if gone(entry[-1])]
            heap[:] = [entry for entry in heap if not gone(entry[-1])]
            heapq.heapify(heap)
        return found
