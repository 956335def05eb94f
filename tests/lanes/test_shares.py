"""Whose audio goes first on a lane: live speech before recordings, and tenants by their shares."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from deployments.fairness import NOBODY, Payer
from deployments.interfaces import (
    ChatOptions,
    ChatRequest,
    DiarizationInput,
    SpeakerCount,
    Speech,
    SpeechOptions,
    VadInput,
    VadResult,
)
from serve_app.identity.principal import Principal
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.recogniser import Recogniser
from serve_app.lanes.lane import BATCH_BYTES, JOINING_BYTES, LaneStream
from serve_app.lanes.pool import LanePool, LaneTimings
from serve_app.lanes.requests import Call, Calls, Measure
from serve_app.usage.meter import Counted, Meter
from tests.fakes import LocalReplicaSet
from tests.lanes.test_pool import Echo, StreamOwner, ride
from tests.waiting import until

GREEDY, QUIET = Payer("greedy"), Payer("quiet")


class Order(Echo):
    """Keeps whose pieces come, batch by batch, and who pays for them."""

    def __init__(self) -> None:
        super().__init__()
        self.payers: dict[int, Payer] = {}
        self.came: list[list[str]] = []
        self.opened = asyncio.Event()
        self.opened.set()

    def pay(self, lane: str, payers: Any) -> None:
        self.payers.update(payers)

    async def exchange(self, lane: str, batch: list[VadInput], left: list[int]) -> list[VadResult]:
        if batch:
            self.came.append([self.payers.get(it.session, NOBODY).tenant for it in batch])
        await self.opened.wait()
        return await super().exchange(lane, batch, left)


class Joiner(StreamOwner):
    """Sends all that it has when it is attached, as a session that moves from a lost replica."""

    stream: LaneStream

    def __init__(self, pcm: bytes) -> None:
        super().__init__()
        self.pcm = pcm

    def attached(self) -> None:
        super().attached()
        self.stream.put((self.pcm, None))


def stream_of(lanes: LanePool, payer: Payer, batch: bool = False, pcm: bytes = b"") -> LaneStream:
    owner = Joiner(pcm)
    owner.stream = LaneStream(lanes, owner, payer, batch)
    lanes.attach(owner.stream)
    return owner.stream


def carried(streams: Sequence[tuple[Payer, bool, int]]) -> list[list[str]]:
    """The batches that a lane makes of what these streams have for it at the same moment: payer,
    whether it is a recording, MiB."""
    order = Order()

    async def test(lanes: LanePool) -> None:
        await until(lambda: lanes.count == 1)
        all_ = [stream_of(lanes, payer, batch) for payer, batch, _ in streams]
        await until(lambda: len(order.heard) == len(streams))
        order.came.clear()
        for stream, (_, _, mebibytes) in zip(all_, streams, strict=True):
            for _ in range(mebibytes):
                stream.put((bytes(1 << 20), None))
        await until(lambda: sum(map(len, order.came)) == sum(it[2] for it in streams))

    ride(LocalReplicaSet(one=order), test, tick_s=0.005)
    return order.came


def test_a_quiet_tenants_audio_is_in_the_next_batch_however_much_waits() -> None:
    batches = carried([(GREEDY, False, 30), (QUIET, False, 2)])
    assert batches[0].count("quiet") == 2
    assert len(batches[0]) == BATCH_BYTES >> 20


def test_weights_are_shares_of_a_batch() -> None:
    first = carried([(Payer("light"), False, 20), (Payer("heavy", 3.0), False, 20)])[0]
    assert (first.count("light"), first.count("heavy")) == (2, 6)


def test_live_speech_goes_before_recordings_of_any_tenant() -> None:
    batches = carried([(QUIET, True, 4), (GREEDY, False, 12)])
    assert [tenant for batch in batches for tenant in batch] == ["greedy"] * 12 + ["quiet"] * 4


def joined(streams: Sequence[tuple[Payer, bool]]) -> list[str]:
    """The order in which these streams join, each with as much as a batch has room for."""
    order = Order()

    async def test(lanes: LanePool) -> None:
        await until(lambda: lanes.count == 1)
        for payer, batch in streams:
            stream_of(lanes, payer, batch, bytes(JOINING_BYTES))
        await until(lambda: len(order.heard) == len(streams))

    ride(LocalReplicaSet(one=order), test, tick_s=0.005)
    return [tenant for batch in order.came for tenant in batch]


def test_tenants_join_by_their_shares() -> None:
    assert joined([(GREEDY, False)] * 10 + [(QUIET, False)]).index("quiet") <= 2


def test_live_sessions_join_before_recordings() -> None:
    order = joined([(QUIET, True)] * 5 + [(GREEDY, False)] * 5)
    assert order[0] == "quiet", "the first joins at once"
    assert order[1:6] == ["greedy"] * 5


class Paid(Echo):
    """Keeps who pays, and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.payers: list[Payer] = []

    def pay(self, lane: str, payers: Any) -> None:
        self.payers += payers.values()

    async def exchange(self, lane: str, batch: Any, left: list[int]) -> list[VadResult]:
        return []


def paid(item_type: type, begin: Callable[[LanePool], object]) -> list[Payer]:
    """What a replica is told of the work that `begin` puts on a lane."""
    model = Paid()

    async def go() -> None:
        lanes = LanePool(LocalReplicaSet(one=model), LaneTimings(0.005), item_type)
        running = asyncio.create_task(lanes.run())
        await until(lambda: lanes.count == 1)
        begun = begin(lanes)
        await until(lambda: model.payers)
        running.cancel()
        if isinstance(begun, asyncio.Task):
            begun.cancel()

    asyncio.run(go())
    return model.payers


def test_a_replica_is_told_who_pays_for_a_request() -> None:
    def begin(lanes: LanePool) -> Call:
        measure = Measure(Counted.TOKENS, lambda request, answer: 0)
        payer_of = lambda caller: Payer(caller.tenant, 2.0)  # noqa: E731
        calls = Calls(lanes, 1.0, "reply_failed", Meter(lambda: 0), measure, payer_of)
        return calls.start((), ChatOptions(), caller=Principal("acme"))

    assert paid(ChatRequest, begin) == [Payer("acme", 2.0)]


def test_a_replica_is_told_who_pays_for_a_recording() -> None:
    def transcribe(lanes: LanePool) -> object:
        recogniser = Recogniser(lanes, 1, 5.0).of(QUIET)
        return asyncio.ensure_future(recogniser.transcribe(b"", SpeechOptions()))

    def diarize(lanes: LanePool) -> object:
        async def recording() -> AsyncGenerator[bytes]:
            yield b""

        diarization = Diarization(lanes, 5.0).of(GREEDY)
        return asyncio.ensure_future(diarization.turns(recording, SpeakerCount(), lambda _: None))

    assert paid(Speech, transcribe) == [QUIET]
    assert paid(DiarizationInput, diarize) == [GREEDY]
