"""What ends its engine twice is found, and nobody else suffers for it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.interfaces import Say, Sound
from serve_app.calls import Calls
from serve_app.errors import ClientError
from serve_app.lanes import Lanes, Terms
from serve_app.quarantine import Quarantine

POISON = "poison"


def test_alone_aboard_of_two_losses_is_guilty() -> None:
    quarantine: Quarantine[str] = Quarantine()
    assert quarantine.lost(["a"]) is None
    assert quarantine.lost(["a"]) == "a"
    assert quarantine.lost(["a"]) is None, "it begins anew"


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
def test_whoever_it_is_is_found_and_nobody_else(riders: int, poison: int) -> None:
    guilty = poison % riders
    quarantine: Quarantine[int] = Quarantine()
    aboard, waiting, losses = list(range(riders)), set[int](), 0
    answered: list[int] = []
    while guilty in aboard or waiting:
        if guilty in aboard:
            losses += 1
            found = quarantine.lost(aboard)
            waiting |= {rider for rider in aboard if quarantine.must_wait(rider)}
            aboard = [r for r in aboard if r not in waiting and r != found]
            if found is not None:
                assert found == guilty
        for rider in aboard:
            if rider != guilty:
                answered.append(rider)
                quarantine.cleared(rider)
        aboard = [rider for rider in aboard if rider == guilty]
        if (turn := quarantine.next_trial()) is not None:
            waiting.discard(turn)
            aboard.append(turn)
    assert losses <= 3 and sorted(answered) == [r for r in range(riders) if r != guilty]


class Mortal:
    """Replicas that end when they are asked the poison; each answers after a moment."""

    def __init__(self) -> None:
        self.ended = 0

    async def replicas(self) -> list[str]:
        return [f"replica-{self.ended}", f"replica-{self.ended + 1}"]

    async def connect(self, name: str) -> "Mortal.Connection":
        return Mortal.Connection(self)

    class Connection:
        def __init__(self, fleet: "Mortal") -> None:
            self.fleet = fleet
            self.answers: asyncio.Queue[list[Sound]] = asyncio.Queue()

        async def exchange(self, batch: Sequence[Any], left: Sequence[int], _: int) -> None:
            if any(say.text == POISON for say in batch):
                self.fleet.ended += 1
                raise ConnectionError
            asyncio.get_running_loop().call_later(0.03, self._answer, list(batch))

        def _answer(self, batch: list[Say]) -> None:
            self.answers.put_nowait([Sound(say.session, b"12", True) for say in batch])

        async def receive(self) -> list[Sound]:
            return await self.answers.get()

        def close(self) -> None: ...


def test_a_request_that_ends_its_engine_twice_is_refused_from_then_on() -> None:
    async def say(calls: Calls, text: str) -> bytes:
        return b"".join([it.pcm async for it in calls.stream(text, "voice", 1.0, 0)])

    async def go() -> None:
        fleet = Mortal()
        lanes = Lanes(fleet, Terms(0.005, 1.0), Say)
        calls = Calls(lanes, 20.0, "speech_failed")
        running = asyncio.create_task(lanes.run())
        await asyncio.sleep(0.3)
        poisoned = asyncio.create_task(say(calls, POISON))
        company = [asyncio.create_task(say(calls, f"good {n}")) for n in range(5)]
        assert await asyncio.gather(*company) == [b"12"] * 5
        with pytest.raises(ClientError) as refused:
            await poisoned
        assert refused.value.code == "request_quarantined" and refused.value.status == 422
        ended = fleet.ended
        assert 2 <= ended <= 3
        with pytest.raises(ClientError):
            await say(calls, POISON)
        assert fleet.ended == ended, "the engine was not asked again"
        assert await say(calls, "good again") == b"12"
        running.cancel()

    asyncio.run(go())
