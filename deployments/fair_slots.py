"""A bound on what is done at once, and whose turn it is among those who wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.fair_queue import FairQueue
from deployments.fairness import FairShares, Payer

Turn = asyncio.Future[None]


class FairSlots:
    """At most `slots` pieces of work at once. Of those that wait, live ones go first, and then the
    tenant that has had the least."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._shares = FairShares()
        self._waiting: FairQueue[Turn] = FairQueue()
        self.charge = self._shares.charge
        """For work that took more than was known when it came."""

    @asynccontextmanager
    async def slot(
        self, payer: Payer, cost: float = 0.0, batch: bool = False
    ) -> AsyncIterator[None]:
        """`cost`: seconds of audio; `batch`: part of a recording."""
        ticket = self._shares.ticket(payer, cost, batch)
        try:
            await self._come(ticket.rank, batch)
            try:
                yield
            finally:
                self._pass_on()
        finally:
            self._shares.end(ticket)

    async def _come(self, rank: float, batch: bool) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(turn, rank, batch)
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: Turn) -> None:
        if turn.cancelled():
            self._waiting.remove(lambda it: it is turn)
        else:  # its turn had come at the same moment
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # else it was cancelled at the same moment
                turn.set_result(None)
                return
        self._free += 1
