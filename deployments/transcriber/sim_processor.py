"""A simulated processor: it works on audio at a stated speed, so that there can be too much of it.

It works on a slice of one piece at a time, as engines do that batch by steps: live pieces first,
and then those of the tenant that has had the least.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

from deployments.fair_queue import FairQueue
from deployments.fairness import FairShares, Ticket
from deployments.interfaces import payer_of

SLICE_S = 0.1
"""Of audio."""

LATE_S = 0.05
"""How late a timer may come without work being lost: what is later is lost."""


@dataclass(slots=True)
class _Piece:
    key: Hashable
    left_s: float
    batch: bool
    ticket: Ticket
    done: Callable[[], None]


class SimProcessor:
    """`speed`: seconds of audio in a second."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._shares = FairShares()
        self._waiting: FairQueue[_Piece] = FairQueue()
        self._filled = asyncio.Event()
        self._gone: set[Hashable] = set()
        self._task: asyncio.Task[None] | None = None

    def waiting(self) -> int:
        """Pieces, without the one at work."""
        return len(self._waiting)

    def add(self, key: Hashable, seconds: float, batch: bool, done: Callable[[], None]) -> None:
        """Work on a piece of an utterance; `done` is called after it."""
        ticket = self._shares.ticket(payer_of(key), seconds, batch)
        self._put(_Piece(key, seconds, batch, ticket, done))
        self._filled.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def forget(self, keys: Collection[Hashable]) -> None:
        for piece in self._waiting.remove(lambda it: it.key in keys):
            self._shares.end(piece.ticket)
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
            if not self._filled.is_set():
                await self._filled.wait()
                due = loop.time()
            piece = self._waiting.take()
            slice_s = min(SLICE_S, piece.left_s)
            due = max(due, loop.time() - LATE_S) + slice_s / self._speed
            self._gone.clear()
            await asyncio.sleep(due - loop.time())
            piece.left_s -= slice_s
            self._after(piece)
            if not self._waiting:
                self._filled.clear()

    def _put(self, piece: _Piece) -> None:
        self._waiting.put(piece, piece.ticket.rank, piece.batch)

    def _after(self, piece: _Piece) -> None:
        if piece.key in self._gone:
            self._shares.end(piece.ticket)
        elif piece.left_s > 0:
            self._put(piece)
        else:
            self._shares.end(piece.ticket)
            piece.done()
