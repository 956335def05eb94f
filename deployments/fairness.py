"""Fair shares: in which order the waiting work of several tenants is done. Pure.

Each tenant has a counter: the work that was asked of it, divided by its weight. Work is done in the
order of the counters, so the tenant that has had the least goes first. A tenant that comes back is
lifted to the lowest rank of what is open: having been away earns nothing. While others are away
their shares are there for all. Live work and recordings have counters of their own: live work goes
first, and a tenant's own recordings must not make it wait.
"""

import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

LEAST = 0.1
"""What work costs at least, in seconds of audio: what costs nothing would never come to an
end."""

SWEEP = 64
"""Tickets that end, beyond as many as are open, before what is no longer needed is forgotten."""


class Payer(NamedTuple):
    """The tenant out of whose share a piece of work is done."""

    tenant: str
    weight: float = 1.0
    """Above 0. Twice the weight is twice the share."""


NOBODY = Payer("")

PAYER: ContextVar[Payer] = ContextVar("payer", default=NOBODY)
"""Of the work that the current task does."""


@contextmanager
def paying(payer: Payer) -> Iterator[None]:
    """Work that begins inside is the payer's."""
    token = PAYER.set(payer)
    try:
        yield
    finally:
        PAYER.reset(token)


class Ticket:
    """A piece of work that waits or is done now; the lowest `rank` goes first."""

    __slots__ = ("batch", "payer", "rank")

    def __init__(self, payer: Payer, rank: float, batch: bool) -> None:
        self.payer = payer
        self.rank = rank
        self.batch = batch


class FairShares:
    """What waits for one thing, as an engine, and is at work there.

    Ranks of live work and of recordings (`batch`) cannot be compared.
    """

    def __init__(self) -> None:
        self._of = {batch: _Counters(batch) for batch in (False, True)}

    @property
    def tenants(self) -> int:
        """How many are remembered, of each kind of work."""
        return sum(counters.tenants for counters in self._of.values())

    def ticket(self, payer: Payer, cost: float = 0.0, batch: bool = False) -> Ticket:
        """For work of `cost` seconds of audio; `end` it when it has been done or is given up."""
        return self._of[batch].ticket(payer, cost)

    def charge(self, payer: Payer, cost: float, batch: bool = False) -> None:
        """For an open ticket that took more than was known when it came."""
        self._of[batch].charge(payer, cost)

    def end(self, ticket: Ticket) -> None:
        """Safe to call twice."""
        self._of[ticket.batch].end(ticket)


class _Counters:
    """Of one kind of work.

    Remembers the tenants that have open tickets or have had more than the others, and none when
    nothing is open.
    """

    def __init__(self, batch: bool) -> None:
        self._batch = batch
        self._counters: dict[str, float] = {}
        self._open: dict[str, int] = {}
        self._tickets: set[Ticket] = set()
        self._order = itertools.count()
        self._ranks: list[tuple[float, int, Ticket]] = []
        """A heap; ended tickets leave it when they come to its top, or are swept."""
        self._ended = 0
        """Tickets since the last sweep."""

    @property
    def tenants(self) -> int:
        return len(self._counters)

    def ticket(self, payer: Payer, cost: float) -> Ticket:
        counter = self._counters.get(payer.tenant, 0.0)
        if not self._open.get(payer.tenant):
            counter = max(counter, self._lowest())
        ticket = Ticket(payer, counter, self._batch)
        self._counters[payer.tenant] = counter + max(cost, LEAST) / payer.weight
        self._open[payer.tenant] = self._open.get(payer.tenant, 0) + 1
        self._tickets.add(ticket)
        heapq.heappush(self._ranks, (ticket.rank, next(self._order), ticket))
        return ticket

    def charge(self, payer: Payer, cost: float) -> None:
        if payer.tenant in self._counters:
            self._counters[payer.tenant] += cost / payer.weight

    def end(self, ticket: Ticket) -> None:
        if ticket not in self._tickets:
            return
        self._tickets.remove(ticket)
        self._open[ticket.payer.tenant] -= 1
        self._ended += 1
        if not self._tickets:
            self._forget_all()
        elif self._ended > len(self._tickets) + SWEEP:
            self._sweep()

    def _forget_all(self) -> None:
        self._counters.clear()
        self._open.clear()
        self._ranks.clear()
        self._ended = 0

    def _sweep(self) -> None:
        """Forget ended tickets, and the idle tenants who would be lifted when they come back."""
        self._ranks = [it for it in self._ranks if it[2] in self._tickets]
        heapq.heapify(self._ranks)
        lowest = self._lowest()
        self._open = {tenant: count for tenant, count in self._open.items() if count}
        self._counters = {
            tenant: counter
            for tenant, counter in self._counters.items()
            if tenant in self._open or counter > lowest
        }
        self._ended = 0

    def _lowest(self) -> float:
        """The lowest rank of what is open; 0 if nothing is."""
        while self._ranks and self._ranks[0][2] not in self._tickets:
            heapq.heappop(self._ranks)
        return self._ranks[0][0] if self._ranks else 0.0
