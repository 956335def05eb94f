import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from deployments.interfaces import Endpoint, Resume, VadInput, VadResult
from deployments.vad import Vad
from serve_app.lanes import pool as lanes_module
from serve_app.lanes.lane import BATCH_BYTES, JOINING_BYTES, LaneStream
from serve_app.lanes.load import LaneSignals, Load
from serve_app.lanes.pool import SILENCE_S, UNSERVED_S, LanePool, LaneTimings
from tests.fakes import LocalConnection, LocalReplicaSet
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

    def waiting(self) -> int:
        return 0

    def pay(self, lane: str, payers: Any) -> None:
        """It has no order."""

    def stalled(self) -> bool:
        return False

    async def exchange(self, lane: str, batch: list[VadInput], left: list[int]) -> list[VadResult]:
        self.left += left
        if batch:
            self.batches.append(len(batch))
        for session, pcm, _ in batch:
            self.heard[session] = self.heard.get(session, 0) + len(pcm)
        return [VadResult(piece.session, self.heard[piece.session], (), False) for piece in batch]


class StreamOwner:
    is_busy = False

    def __init__(self) -> None:
        self.attachments = 0
        self.told = 0
        self.answers: list[VadResult] = []

    def attached(self) -> None:
        self.attachments += 1

    def unserved(self) -> None:
        self.told += 1

    def busy(self) -> bool:
        return self.is_busy

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


def test_replicas_that_die_together_blame_no_stream() -> None:
    """As on a machine that is lost. The stream was busy on the first; the second, to which it
    moves, is dead already and only not known to be."""
    replica_set = LocalReplicaSet(one=Echo(), two=Echo())

    async def test(lanes: LanePool) -> None:
        await until(lambda: lanes.count == 2)
        owners = [attached(lanes)[1] for _ in range(2)]
        for owner in owners:
            owner.is_busy = True
        await until(lambda: all(owner.attachments for owner in owners))
        del replica_set.models["one"], replica_set.models["two"]
        one, two = replica_set.connections["one"], replica_set.connections["two"]
        two.dead = True
        one.kill()
        await until(lambda: lanes.losses == 2)
        replica_set.models["three"] = Echo()
        await until(lambda: [owner.attachments for owner in owners] == [2, 2])

    ride(replica_set, test)


def test_a_replica_that_drains_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SURVEY_S", 0.05)
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        _, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        del replica_set.models["one"]
        replica_set.models["two"] = Echo()
        await until(lambda: owner.attachments == 2)
        await until(lambda: lanes.count == 1)

    ride(replica_set, test)


def test_a_replica_that_drains_finishes_what_it_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SURVEY_S", 0.05)
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        busy, owner = attached(lanes)
        owner.is_busy = True
        await until(lambda: owner.attachments == 1)
        one = replica_set.models.pop("one")
        replica_set.models["two"] = Echo()
        await until(lambda: lanes.count == 2)
        new, _ = attached(lanes)
        assert new.lane and new.lane.name == "two"
        busy.put((b"12", None))
        await until(lambda: bool(owner.answers) and one.heard[busy.key] == 2)
        assert owner.attachments == 1
        owner.is_busy = False
        await until(lambda: owner.attachments == 2 and lanes.count == 1)

    ride(replica_set, test)


def test_the_only_replica_is_left_when_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SURVEY_S", 0.05)
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        del replica_set.models["one"]
        stream.put((b"12", None))
        await until(lambda: bool(owner.answers))
        assert await unchanged(lambda: owner.attachments, 0.2) == 1 and lanes.count == 1
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


class Slow(Echo):
    """Takes a batch when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def exchange(self, lane: str, batch: list[VadInput], left: list[int]) -> list[VadResult]:
        if batch:
            await self.go.wait()
        return await super().exchange(lane, batch, left)


def test_a_slow_replica_keeps_its_streams() -> None:
    slow = Slow()

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        stream.put((b"12", None))
        await until(lambda: lanes.signals().round_trip_s > 0.6)
        assert owner.attachments == 1 and lanes.losses == 0
        slow.go.set()
        await until(lambda: bool(owner.answers))

    ride(LocalReplicaSet(one=slow), test, patience_s=0.2)


def test_signals_are_the_worst_of_all_lanes_and_fall_again() -> None:
    async def test(lanes: LanePool) -> None:
        assert lanes.signals() == LaneSignals()
        stream, _ = attached(lanes)
        await until(lambda: lanes.count == 2)
        replica_set.connections["vad"].load = Load(0.9, 1)
        replica_set.connections["slow"].load = Load(0.1, 7)
        assert lanes.signals()[1:] == (0.9, 7)
        for one in (stream, attached(lanes)[0], attached(lanes)[0]):
            one.put((bytes(640), Resume(0, False, Endpoint())))
        await until(lambda: lanes.signals().round_trip_s > 0.3)
        slow.go.set()
        await until(lambda: lanes.signals().round_trip_s < 0.3)

    slow = Slow()
    replica_set = LocalReplicaSet(vad=Vad(), slow=slow)
    ride(replica_set, test)


def test_slowing_down_makes_batches_fewer_and_back_to_normal() -> None:
    echo = Echo()

    async def batches(lanes: LanePool, stream: LaneStream) -> float:
        """A second's worth."""
        before, began = len(echo.batches), time.monotonic()
        while time.monotonic() < began + 0.5:
            stream.put((b"12", None))
            await asyncio.sleep(0.005)
        return (len(echo.batches) - before) / (time.monotonic() - began)

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: bool(owner.attachments))
        lanes.slow_down(10.0)
        assert await batches(lanes, stream) < 8
        lanes.slow_down(1.0)
        assert await batches(lanes, stream) > 8

    ride(LocalReplicaSet(one=echo), test, tick_s=0.02)


class Heavy(StreamOwner):
    """Sends a lot when it is attached, and remembers what it heard before."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.stream: LaneStream

    def attached(self) -> None:
        super().attached()
        self.stream.put((bytes(self.size), None))


class Sizes(Echo):
    """Notes the bytes of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def exchange(self, lane: str, batch: list[VadInput], left: list[int]) -> list[VadResult]:
        self.sizes.append(sum(len(piece.pcm) for piece in batch))
        return await super().exchange(lane, batch, left)


def joined(lanes: LanePool, size: int) -> Heavy:
    owner = Heavy(size)
    owner.stream = LaneStream(lanes, owner)
    lanes.attach(owner.stream)
    return owner


def test_streams_that_join_at_once_are_paced_and_live_audio_goes_on() -> None:
    sizes = Sizes()

    async def test(lanes: LanePool) -> None:
        stream, live = attached(lanes)
        await until(lambda: live.attachments == 1)
        heavy = [joined(lanes, 300_000) for _ in range(40)]
        stream.put((b"12", None))
        await until(lambda: bool(live.answers))
        assert not all(owner.attachments for owner in heavy), "live audio waited for all of them"
        await until(lambda: all(owner.answers for owner in heavy))
        assert all(owner.attachments == 1 for owner in heavy)

    ride(LocalReplicaSet(one=sizes), test, tick_s=0.005)
    assert max(sizes.sizes) <= JOINING_BYTES + 300_000 + 2


def test_a_stream_that_leaves_before_its_turn_was_never_there() -> None:
    sizes = Sizes()

    async def test(lanes: LanePool) -> None:
        await until(lambda: lanes.count == 1)
        heavy = [joined(lanes, 600_000) for _ in range(5)]
        heavy[4].stream.leave()
        await until(lambda: all(owner.answers for owner in heavy[:4]))
        assert heavy[4].attachments == 0 and sizes.left == []

    ride(LocalReplicaSet(one=sizes), test, tick_s=0.005)


def test_a_batch_has_a_bound_and_what_is_over_it_goes_with_the_next() -> None:
    sizes = Sizes()

    async def test(lanes: LanePool) -> None:
        stream, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        for _ in range(30):
            stream.put((bytes(1 << 20), None))
        await until(lambda: len(owner.answers) == 30)
        assert owner.answers[-1].until == 30 << 20

    ride(LocalReplicaSet(one=sizes), test, tick_s=0.005)
    assert max(sizes.sizes) <= BATCH_BYTES


def test_no_stream_joins_a_replica_that_does_not_answer() -> None:
    """A frozen process still lets clients connect: its kernel does."""

    class Mute(LocalReplicaSet):
        async def connect(self, name: str) -> LocalConnection:
            if name == "frozen":
                await asyncio.Event().wait()
            return await super().connect(name)

    replica_set = Mute(frozen=Echo(), one=Echo())

    async def test(lanes: LanePool) -> None:
        owners = [attached(lanes) for _ in range(4)]
        await until(lambda: all(owner.attachments for _, owner in owners))
        assert {stream.lane.name for stream, _ in owners if stream.lane} == {"one"}

    ride(replica_set, test, patience_s=0.2)


def test_when_no_replica_is_left_for_a_while_the_owners_are_told_once() -> None:
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        owners = [attached(lanes)[1] for _ in range(3)]
        await until(lambda: all(owner.attachments for owner in owners))
        connection = replica_set.connections["one"]
        del replica_set.models["one"]
        connection.frozen = True
        began = time.monotonic()
        await until(lambda: all(owner.told == 1 for owner in owners))
        assert time.monotonic() - began < 5, "what RELIABILITY promises"
        replica_set.models["two"] = Echo()
        await until(lambda: all(owner.attachments == 2 for owner in owners))
        assert [owner.told for owner in owners] == [1, 1, 1]

    ride(replica_set, test, patience_s=SILENCE_S)


def test_a_replica_that_is_replaced_at_once_is_not_worth_a_word() -> None:
    replica_set = LocalReplicaSet(one=Echo())

    async def test(lanes: LanePool) -> None:
        _, owner = attached(lanes)
        await until(lambda: owner.attachments == 1)
        del replica_set.models["one"]
        replica_set.models["two"] = Echo()
        replica_set.connections["one"].kill()
        await until(lambda: owner.attachments == 2)
        assert await unchanged(lambda: owner.told, UNSERVED_S + 0.2) == 0

    ride(replica_set, test)
