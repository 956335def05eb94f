import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from deployments.interfaces import Endpoint, Resume, VadInput, VadResult
from deployments.vad import Vad
from serve_app.lanes import pool as lanes_module
from serve_app.lanes.pool import LanePool, LaneStream, LaneTimings
from tests.fakes import LocalReplicaSet
from tests.waiting import unchanged, until


class Echo:
    """A model that answers every piece at once with the length it heard in all."""

    def __init__(self) -> None:
        self.heard: dict[int, int] = {}
        self.batches: list[int] = []
        self.left: list[int] = []

    async def listen(self, lane: str) -> Any:
        yield []
        await asyncio.Event().wait()

    async def exchange(self, lane: str, batch: list[VadInput], left: list[int]) -> list[VadResult]:
        self.left += left
        if batch:
            self.batches.append(len(batch))
        for session, pcm, _ in batch:
            self.heard[session] = self.heard.get(session, 0) + len(pcm)
        return [VadResult(piece.session, self.heard[piece.session], (), False) for piece in batch]


class StreamOwner:
    def __init__(self) -> None:
        self.attachments = 0
        self.answers: list[VadResult] = []

    def attached(self) -> None:
        self.attachments += 1

    def busy(self) -> bool:
        return False

    def quarantined(self) -> None:
        raise AssertionError("it was never busy")

    def answered(self, answer: VadResult) -> None:
        self.answers.append(answer)


def attached(lanes: LanePool) -> tuple[LaneStream, StreamOwner]:
    owner = StreamOwner()
    stream = LaneStream(lanes, owner)
    lanes.attach(stream)
    return stream, owner


def ride(
    replica_set: LocalReplicaSet,
    test: Callable[[LanePool], Awaitable[None]],
    tick_s: float = 0.02,
    patience_s: float = 1.0,
) -> None:
    async def go() -> None:
        lanes = LanePool(replica_set, LaneTimings(tick_s, patience_s), VadInput)
        running = asyncio.create_task(lanes.run())
        try:
            await test(lanes)
        finally:
            running.cancel()

    asyncio.run(go())


def test_one_call_a_tick_carries_all_sessions() -> None:
    echo, tick_s = Echo(), 0.05

    async def test(lanes: LanePool) -> None:
        owners = [attached(lanes) for _ in range(50)]
        await until(lambda: all(owner.attachments for _, owner in owners))
        began = time.monotonic()
        for _ in range(20):
            for stream, _ in owners:
                stream.put((b"12", None))
            await asyncio.sleep(0.01)  # pieces come over several ticks
        await until(lambda: all(r.answers and r.answers[-1].until == 40 for _, r in owners))
        assert len(echo.batches) <= (time.monotonic() - began) / tick_s + 2

    ride(LocalReplicaSet(one=echo), test, tick_s)
    assert sum(echo.batches) == 1000


def test_something_urgent_does_not_wait_for_the_tick() -> None:
    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: bool(owner.attachments))
        stream.put((b"12", None))
        await until(lambda: len(owner.answers) == 1)
        stream.put((b"12", None), urgent=True)
        async with asyncio.timeout(0.5):
            await until(lambda: len(owner.answers) == 2)

    ride(LocalReplicaSet(one=Echo()), test, tick_s=30)


def answered(owners: list[tuple[LaneStream, StreamOwner]], until: int) -> bool:
    return all(owner.answers and owner.answers[-1].until == until for _, owner in owners)


def test_sessions_are_spread_and_stay_where_they_are() -> None:
    one, two = Echo(), Echo()

    async def test(lanes: LanePool) -> None:
        await until(lambda: lanes.count == 2)
        owners = [attached(lanes) for _ in range(10)]
        for number in range(1, 4):
            for stream, _ in owners:
                stream.put((b"12", None))
            await until(partial(answered, owners, 2 * number))

    ride(LocalReplicaSet(one=one, two=two), test)
    assert len(one.heard) == len(two.heard) == 5


def test_riders_wait_for_the_first_replica() -> None:
    replica_set = LocalReplicaSet()

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        stream.put((b"dropped: attaching will ask for everything again", None))
        assert await unchanged(lambda: owner.attachments, 0.1) == 0
        replica_set.models["one"] = Echo()
        await until(lambda: owner.attachments == 1)

    ride(replica_set, test)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_replica_that_dies_or_freezes_loses_its_riders_to_another(how: str) -> None:
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        replica_set.models["two"] = Echo()
        connection = replica_set.connections["one"]
        if how == "kill":
            connection.kill()
        else:
            connection.frozen = True
            stream.put((b"12", None))
        await until(lambda: owner.attachments == 2)
        stream.put((b"12", None))
        await until(lambda: bool(owner.answers))
        assert stream.lane and stream.lane.name == "two"
        assert lanes.losses == 1

    ride(replica_set, test, patience_s=0.2)


def test_a_replica_that_drains_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SURVEY_S", 0.05)
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        _, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        del replica_set.models["one"]
        replica_set.models["two"] = Echo()
        await until(lambda: owner.attachments == 2)

    ride(replica_set, test)


def test_a_rider_that_leaves_is_told_of() -> None:
    echo = Echo()

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        key = stream.key
        stream.leave()
        await until(lambda: echo.left == [key])
        stream.put((b"12", None))
        assert await unchanged(lambda: dict(echo.heard), 0.1) == {}

    ride(LocalReplicaSet(one=echo), test)


def test_a_session_that_leaves_with_audio_on_its_way_harms_nobody() -> None:
    """Its last piece was gathered with the news that it left: the VAD would not know it."""

    async def test(lanes: LanePool) -> None:
        begin = Resume(0, False, Endpoint())
        (leaving, gone), (staying, owner) = attached(lanes), attached(lanes)
        await until(lambda: bool(gone.attachments and owner.attachments))
        for stream in (leaving, staying):
            stream.put((bytes(640), begin))
        await until(lambda: bool(gone.answers and owner.answers))
        leaving.put((bytes(640), None))
        leaving.leave()
        staying.put((bytes(640), None))
        await until(lambda: len(owner.answers) == 2)
        assert owner.attachments == 1 and lanes.losses == 0

    ride(LocalReplicaSet(vad=Vad()), test, tick_s=0.05)
