"""A bound on what is done at once, and whose turn it is among those who wait."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.fairness import FairShares, Payer

Waiting = tuple[bool, float, int, asyncio.Future[None]]


class FairSlots:
    """At most `slots` pieces of work at once. Of those that wait, live ones go first, and then the
    tenant that has had the least."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._shares = FairShares()
        self._order = itertools.count()
        self._waiting: list[Waiting] = []
        self.charge = self._shares.charge
        """For work that took more than was known when it came."""

    @asynccontextmanager
    async def slot(
        self, payer: Payer, cost: float = 0.0, batch: bool = False
    ) -> AsyncIterator[None]:
        """`cost`: seconds of audio; `batch`: part of a recording."""
        ticket = self._shares.ticket(payer, cost)
        try:
            await self._come(batch, ticket.rank)
            try:
                yield
            finally:
                self._pass_on()
        finally:
            self._shares.end(ticket)

    async def _come(self, batch: bool, rank: float) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        waiting = (batch, rank, next(self._order), turn)
        heapq.heappush(self._waiting, waiting)
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise

    def _give_up(self, waiting: Waiting) -> None:
        if waiting[3].cancelled():
            self._waiting.remove(waiting)
            heapq.heapify(self._waiting)
        else:  # its turn had come at the same moment
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[3].set_result(None)
        else:
            self._free += 1
