"""Fair shares, by what must hold for any load."""

import random
from collections import Counter

import pytest

from deployments.fairness import LEAST, SWEEP, FairShares, Payer, Ticket

A, B, C = Payer("a"), Payer("b"), Payer("c", 3.0)


class House:
    """One engine that does one piece of work after the other, always that of the lowest rank."""

    def __init__(self) -> None:
        self.shares = FairShares()
        self.waiting: list[tuple[float, int, Ticket, float]] = []
        self.served: Counter[str] = Counter()
        self.log: list[str] = []
        self.number = 0
        self.at_work: Ticket | None = None

    def ask(self, payer: Payer, cost: float) -> None:
        self.number += 1
        ticket = self.shares.ticket(payer, cost)
        self.waiting.append((ticket.rank, self.number, ticket, cost))

    def serve(self) -> str:
        first = min(self.waiting, key=lambda it: it[:2])
        self.waiting.remove(first)
        _, _, ticket, cost = first
        if self.at_work:
            self.shares.end(self.at_work)
        self.at_work = ticket
        self.served[ticket.payer.tenant] += cost  # type: ignore[assignment]
        self.log.append(ticket.payer.tenant)
        return ticket.payer.tenant

    def waits(self, payer: Payer) -> int:
        return sum(ticket.payer == payer for _, _, ticket, _ in self.waiting)


@pytest.mark.parametrize("seed", range(8))
def test_while_all_want_more_each_gets_its_weight(seed: int) -> None:
    chance = random.Random(seed)
    payers = [Payer(str(number), chance.choice([0.5, 1.0, 2.0, 5.0])) for number in range(4)]
    house = House()
    for _ in range(1500):
        for payer in payers:
            while house.waits(payer) < 3:
                house.ask(payer, chance.uniform(0.1, 30.0))
        house.serve()
    whole = sum(house.served.values())
    for payer in payers:
        share = payer.weight / sum(it.weight for it in payers)
        assert house.served[payer.tenant] / whole == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("seed", range(8))
def test_nobody_starves_and_nothing_idles(seed: int) -> None:
    """Whoever comes waits for no more than what others had been promised before it: in any load,
    each tenant's oldest piece of work is done within a bounded number of others."""
    chance = random.Random(seed)
    payers = [Payer(str(number), chance.choice([1.0, 2.0])) for number in range(5)]
    house, since = House(), dict.fromkeys((str(number) for number in range(5)), 0)
    for step in range(1000):
        for payer in chance.sample(payers, chance.randrange(4)):
            if not house.waits(payer):
                since[payer.tenant] = step
            for _ in range(chance.randrange(4)):
                house.ask(payer, 1.0)
        if house.waiting:
            before = len(house.waiting)
            since[house.serve()] = step
            assert len(house.waiting) == before - 1, "work that waits is done"
        late = [step - since[it.tenant] for it in payers if house.waits(it)]
        assert max(late, default=0) <= 2 * len(payers) + 4


def test_a_quiet_tenant_goes_before_a_flood_that_came_first() -> None:
    house = House()
    for _ in range(1000):
        house.ask(A, 30.0)
    house.serve()
    house.ask(B, 1.0)
    assert [house.serve(), house.serve()] == ["b", "a"]


def test_who_was_away_has_saved_nothing() -> None:
    """After A had the house to itself, B gets its half, and not all until it has caught up."""
    house = House()
    for _ in range(1000):
        house.ask(A, 30.0)
    for _ in range(500):
        house.serve()
    for _ in range(100):
        house.ask(B, 30.0)
    house.log.clear()
    for _ in range(40):
        house.serve()
    assert house.log.count("b") in (20, 21)


def test_what_others_do_not_use_is_anybodys() -> None:
    house = House()
    for _ in range(10):
        house.ask(A, 30.0)
    assert [house.serve() for _ in range(10)] == ["a"] * 10


def test_what_costs_nothing_counts_a_little() -> None:
    house = House()
    for _ in range(100):
        house.ask(A, 0.0)
        house.ask(B, LEAST)
    for _ in range(100):
        house.serve()
    assert house.log.count("a") == 50


def test_more_weight_is_more_work_at_the_same_cost() -> None:
    house = House()
    for _ in range(100):
        house.ask(A, 10.0)
        house.ask(C, 10.0)
    for _ in range(40):
        house.serve()
    assert house.log.count("c") == pytest.approx(30, abs=1)


def test_what_was_dearer_than_it_seemed_is_charged() -> None:
    house = House()
    for _ in range(10):
        house.ask(A, 1.0)
        house.shares.charge(A, 9.0)
        house.ask(B, 1.0)
    for _ in range(11):
        house.serve()
    assert house.log.count("b") == 10


def test_a_tenants_recordings_do_not_make_its_own_live_work_wait() -> None:
    shares = FairShares()
    shares.ticket(B, 1.0)
    recording = shares.ticket(A, 30.0, batch=True)
    live = shares.ticket(A, 0.1)
    assert live.rank == 0.0 and recording.batch and not live.batch
    assert shares.ticket(A, 30.0, batch=True).rank == 30.0


def test_idle_tenants_are_forgotten() -> None:
    shares = FairShares()
    long = shares.ticket(A, 1000.0)
    others = []
    for number in range(1000):
        shares.end(shares.ticket(Payer(f"t{number}"), 0.0))
        others.append(shares.ticket(B, 5.0))
    shares.end(long)
    assert shares.tenants > 1000, "each of them has had more than the one at work"
    for ticket in others[:-1]:
        shares.end(ticket)
    assert shares.tenants <= 2, "who is at work, and who has had more than that"
    shares.end(others[-1])
    shares.end(others[-1])
    assert shares.tenants == 0


def test_a_long_piece_of_work_keeps_no_memory_of_short_ones() -> None:
    shares = FairShares()
    shares.ticket(A, 1.0)
    for _ in range(10_000):
        shares.end(shares.ticket(B, 1.0))
    assert len(shares._of[False]._ranks) <= 2 + SWEEP + 4
