"""A request that crashes its engine twice is found, and all others are answered."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.fairness import NOBODY
from deployments.interfaces import AudioDelta, SpeechRequest
from serve_app.errors import ClientError
from serve_app.lanes.load import Load
from serve_app.lanes.pool import LanePool, LaneTimings
from serve_app.lanes.quarantine import Quarantine
from serve_app.lanes.requests import Calls, Measure
from serve_app.usage.meter import Counted, Meter
from tests.waiting import until

POISON = "poison"


def test_a_stream_alone_on_two_lost_replicas_is_the_culprit() -> None:
    quarantine: Quarantine[str] = Quarantine()
    assert quarantine.lost(["a"]) is None
    assert quarantine.lost(["a"]) == "a"
    assert quarantine.lost(["a"]) is None, "counting starts again"


def test_in_company_suspects_are_tried_one_at_a_time() -> None:
    quarantine: Quarantine[str] = Quarantine()
    assert quarantine.lost(["a", "b", "c"]) is None
    assert quarantine.lost(["a", "b", "c"]) is None
    assert quarantine.next_trial() == "a" and quarantine.next_trial() is None
    assert quarantine.must_wait("b") and not quarantine.must_wait("a")
    quarantine.cleared("a")
    assert quarantine.next_trial() == "b"
    assert quarantine.lost(["b", "new"]) == "b"
    assert quarantine.next_trial() == "c"


@given(st.integers(1, 8), st.integers(0, 7))
def test_the_culprit_is_found_and_no_other_stream_is_blamed(owners: int, poison: int) -> None:
    culprit = poison % owners
    quarantine: Quarantine[int] = Quarantine()
    attached, waiting, losses = list(range(owners)), set[int](), 0
    answered: list[int] = []
    while culprit in attached or waiting:
        if culprit in attached:
            losses += 1
            found = quarantine.lost(attached)
            waiting |= {owner for owner in attached if quarantine.must_wait(owner)}
            attached = [r for r in attached if r not in waiting and r != found]
            if found is not None:
                assert found == culprit
        for owner in attached:
            if owner != culprit:
                answered.append(owner)
                quarantine.cleared(owner)
        attached = [owner for owner in attached if owner == culprit]
        if (turn := quarantine.next_trial()) is not None:
            waiting.discard(turn)
            attached.append(turn)
    assert losses <= 3 and sorted(answered) == [r for r in range(owners) if r != culprit]


class Supervised:
    """Replicas that end when they are asked the poison; each answers after a moment."""

    def __init__(self) -> None:
        self.ended = 0

    async def replicas(self) -> list[str]:
        return [f"replica-{self.ended}", f"replica-{self.ended + 1}"]

    async def connect(self, name: str) -> "Supervised.Connection":
        return Supervised.Connection(self)

    class Connection:
        load = Load()
        level = announced = 0

        def __init__(self, replica_set: "Supervised") -> None:
            self.replica_set = replica_set
            self.payers: dict[int, Any] = {}
            self.answers: asyncio.Queue[list[AudioDelta]] = asyncio.Queue()

        async def exchange(self, batch: Sequence[Any], left: Sequence[int], _: int) -> None:
            if any(say.text == POISON for say in batch):
                self.replica_set.ended += 1
                raise ConnectionError
            asyncio.get_running_loop().call_later(0.03, self._answer, list(batch))

        def _answer(self, batch: list[SpeechRequest]) -> None:
            self.answers.put_nowait([AudioDelta(say.session, b"12", True) for say in batch])

        async def receive(self) -> list[AudioDelta]:
            return await self.answers.get()

        def close(self) -> None: ...


def test_a_request_that_ends_its_engine_twice_is_refused_from_then_on() -> None:
    async def say(calls: Calls, text: str) -> bytes:
        return b"".join([it.pcm async for it in calls.stream(text, "voice", 1.0, 0)])

    async def go() -> None:
        replica_set = Supervised()
        lanes = LanePool(replica_set, LaneTimings(0.005, 1.0), SpeechRequest)
        measure = Measure(Counted.CHARACTERS, lambda request, _: len(request[0]))
        calls = Calls(lanes, 20.0, "speech_failed", Meter(lambda: 0), measure, lambda _: NOBODY)
        running = asyncio.create_task(lanes.run())
        await until(lambda: lanes.count)
        poisoned = asyncio.create_task(say(calls, POISON))
        company = [asyncio.create_task(say(calls, f"good {n}")) for n in range(5)]
        assert await asyncio.gather(*company) == [b"12"] * 5
        with pytest.raises(ClientError) as refused:
            await poisoned
        assert refused.value.code == "request_quarantined" and refused.value.status == 422
        ended = replica_set.ended
        assert 2 <= ended <= 3
        with pytest.raises(ClientError):
            await say(calls, POISON)
        assert replica_set.ended == ended, "the engine was not asked again"
        assert await say(calls, "good again") == b"12"
        running.cancel()

    asyncio.run(go())
