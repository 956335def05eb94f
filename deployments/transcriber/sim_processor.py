"""A simulated processor: it works on audio at a stated speed, so that there can be too much of it.

It works on a slice of one piece at a time, as engines do that batch by steps: live pieces first,
and then those of the tenant that has had the least.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

from deployments.fairness import FairShares, Ticket
from deployments.interfaces import payer_of

SLICE_S = 0.1
"""Of audio."""

LATE_S = 0.05
"""How late a timer may come without work being lost: what is later was idle time."""


@dataclass(order=True, slots=True)
class _Piece:
    order: tuple[bool, float, int]
    key: Hashable = field(compare=False)
    left_s: float = field(compare=False)
    ticket: Ticket = field(compare=False)
    done: Callable[[], None] = field(compare=False)


class SimProcessor:
    """`speed`: seconds of audio in a second."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._shares = FairShares()
        self._count = itertools.count()
        self._waiting: list[_Piece] = []
        self._filled = asyncio.Event()
        self._gone: set[Hashable] = set()
        self._task: asyncio.Task[None] | None = None

    def waiting(self) -> int:
        """Pieces, without the one at work."""
        return len(self._waiting)

    def add(self, key: Hashable, seconds: float, batch: bool, done: Callable[[], None]) -> None:
        """Work on a piece of an utterance; `done` is called after it."""
        ticket = self._shares.ticket(payer_of(key), seconds)
        order = (batch, ticket.rank, next(self._count))
        heapq.heappush(self._waiting, _Piece(order, key, seconds, ticket, done))
        self._filled.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def forget(self, keys: Collection[Hashable]) -> None:
        for piece in [it for it in self._waiting if it.key in keys]:
            self._waiting.remove(piece)
            self._shares.end(piece.ticket)
        heapq.heapify(self._waiting)
        self._gone.update(keys)  # the one at work may be among them

    def stop(self) -> None:
        if self._task:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        """Owned by `_task`."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._filled.wait()
            piece = heapq.heappop(self._waiting)
            slice_s = min(SLICE_S, piece.left_s)
            due = max(due, loop.time() - LATE_S) + slice_s / self._speed
            self._gone.clear()
            await asyncio.sleep(due - loop.time())
            piece.left_s -= slice_s
            self._after(piece)
            if not self._waiting:
                self._filled.clear()

    def _after(self, piece: _Piece) -> None:
        if piece.key in self._gone:
            self._shares.end(piece.ticket)
        elif piece.left_s > 0:
            heapq.heappush(self._waiting, piece)
        else:
            self._shares.end(piece.ticket)
            piece.done()
