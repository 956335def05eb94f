import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments.interfaces import Endpoint, Judged, Resume, Unjudged
from deployments.vad import Vad
from serve_app import lanes as lanes_module
from serve_app.lanes import Lanes, Seat, Terms
from tests.fakes import LocalFleet


class Echo:
    """A model that answers every piece at once with the length it heard in all."""

    def __init__(self) -> None:
        self.heard: dict[int, int] = {}
        self.batches: list[int] = []
        self.left: list[int] = []

    async def listen(self, lane: str) -> Any:
        yield []
        await asyncio.Event().wait()

    async def exchange(self, lane: str, batch: list[Unjudged], left: list[int]) -> list[Judged]:
        self.left += left
        if batch:
            self.batches.append(len(batch))
        for session, pcm, _ in batch:
            self.heard[session] = self.heard.get(session, 0) + len(pcm)
        return [Judged(piece.session, self.heard[piece.session], (), False) for piece in batch]


class Rider:
    def __init__(self) -> None:
        self.seatings = 0
        self.answers: list[Judged] = []

    def seated(self) -> None:
        self.seatings += 1

    def busy(self) -> bool:
        return False

    def quarantined(self) -> None:
        raise AssertionError("it was never busy")

    def answered(self, answer: Judged) -> None:
        self.answers.append(answer)


def aboard(lanes: Lanes) -> tuple[Seat, Rider]:
    rider = Rider()
    seat = Seat(lanes, rider)
    lanes.place(seat)
    return seat, rider


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def ride(
    fleet: LocalFleet,
    test: Callable[[Lanes], Awaitable[None]],
    tick_s: float = 0.02,
    patience_s: float = 1.0,
) -> None:
    async def go() -> None:
        lanes = Lanes(fleet, Terms(tick_s, patience_s), Unjudged)
        running = asyncio.create_task(lanes.run())
        try:
            await test(lanes)
        finally:
            running.cancel()

    asyncio.run(go())


def test_one_call_a_tick_carries_all_sessions() -> None:
    echo = Echo()

    async def test(lanes: Lanes) -> None:
        riders = [aboard(lanes) for _ in range(50)]
        await until(lambda: all(rider.seatings for _, rider in riders))
        for _ in range(20):
            for seat, _ in riders:
                seat.put((b"12", None))
            await asyncio.sleep(0.01)
        await until(lambda: all(r.answers and r.answers[-1].until == 40 for _, r in riders))

    ride(LocalFleet(one=echo), test, tick_s=0.05)
    assert len(echo.batches) <= 0.2 / 0.05 + 3
    assert sum(echo.batches) == 1000


def test_something_urgent_does_not_wait_for_the_tick() -> None:
    async def test(lanes: Lanes) -> None:
        seat, rider = aboard(lanes)
        await until(lambda: bool(rider.seatings))
        seat.put((b"12", None))
        await until(lambda: len(rider.answers) == 1)
        seat.put((b"12", None), urgent=True)
        async with asyncio.timeout(0.5):
            await until(lambda: len(rider.answers) == 2)

    ride(LocalFleet(one=Echo()), test, tick_s=30)


def test_sessions_are_spread_and_stay_where_they_are() -> None:
    one, two = Echo(), Echo()

    async def test(lanes: Lanes) -> None:
        await until(lambda: lanes.count == 2)
        riders = [aboard(lanes) for _ in range(10)]
        for _ in range(3):
            for seat, _ in riders:
                seat.put((b"12", None))
            await asyncio.sleep(0.05)
        await until(lambda: all(r.answers and r.answers[-1].until == 6 for _, r in riders))

    ride(LocalFleet(one=one, two=two), test)
    assert len(one.heard) == len(two.heard) == 5


def test_riders_wait_for_the_first_replica() -> None:
    fleet = LocalFleet()

    async def test(lanes: Lanes) -> None:
        seat, rider = aboard(lanes)
        seat.put((b"dropped: seating will ask for everything again", None))
        await asyncio.sleep(0.05)
        assert rider.seatings == 0
        fleet.models["one"] = Echo()
        await until(lambda: rider.seatings == 1)

    ride(fleet, test)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_replica_that_dies_or_freezes_loses_its_riders_to_another(how: str) -> None:
    fleet = LocalFleet(one=Echo())

    async def test(lanes: Lanes) -> None:
        seat, rider = aboard(lanes)
        await until(lambda: rider.seatings == 1)
        fleet.models["two"] = Echo()
        connection = fleet.connections["one"]
        if how == "kill":
            connection.kill()
        else:
            connection.frozen = True
            seat.put((b"12", None))
        await until(lambda: rider.seatings == 2)
        seat.put((b"12", None))
        await until(lambda: bool(rider.answers))
        assert seat.lane and seat.lane.name == "two"
        assert lanes.losses == 1

    ride(fleet, test, patience_s=0.2)


def test_a_replica_that_drains_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SURVEY_S", 0.05)
    fleet = LocalFleet(one=Echo())

    async def test(lanes: Lanes) -> None:
        _, rider = aboard(lanes)
        await until(lambda: rider.seatings == 1)
        del fleet.models["one"]
        fleet.models["two"] = Echo()
        await until(lambda: rider.seatings == 2)

    ride(fleet, test)


def test_a_rider_that_leaves_is_told_of() -> None:
    echo = Echo()

    async def test(lanes: Lanes) -> None:
        seat, rider = aboard(lanes)
        await until(lambda: rider.seatings == 1)
        key = seat.key
        seat.leave()
        await until(lambda: echo.left == [key])
        seat.put((b"12", None))
        await asyncio.sleep(0.05)

    ride(LocalFleet(one=echo), test)
    assert echo.heard == {}


def test_a_session_that_leaves_with_audio_on_its_way_harms_nobody() -> None:
    """Its last piece was gathered with the news that it left: the VAD would not know it."""

    async def test(lanes: Lanes) -> None:
        begin = Resume(0, False, Endpoint())
        (leaving, gone), (staying, rider) = aboard(lanes), aboard(lanes)
        await until(lambda: bool(gone.seatings and rider.seatings))
        for seat in (leaving, staying):
            seat.put((bytes(640), begin))
        await until(lambda: bool(gone.answers and rider.answers))
        leaving.put((bytes(640), None))
        leaving.leave()
        staying.put((bytes(640), None))
        await until(lambda: len(rider.answers) == 2)
        assert rider.seatings == 1 and lanes.losses == 0

    ride(LocalFleet(vad=Vad()), test, tick_s=0.05)
