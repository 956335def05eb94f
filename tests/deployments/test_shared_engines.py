"""Engines in which work waits take the tenants in turn, however much one of them sends."""

import asyncio
from typing import Any

from deployments.batcher import Batcher
from deployments.fairness import Payer, paying
from deployments.interfaces import (
    RATE,
    Hypothesis,
    Speech,
    SpeechOptions,
    SpeechRequest,
)
from deployments.lanes import Lane
from deployments.requests import RequestModel
from tests.deployments.test_batcher import Slow
from tests.fakes import sim_transcriber
from tests.waiting import until

GREEDY, QUIET = Payer("greedy"), Payer("quiet")
SECOND = bytes(2 * RATE)


def finals(batch: bool, *sent: tuple[int, Payer, int]) -> list[int]:
    """The sessions in the order of their finals; each sends that many seconds at once, to an engine
    that recognises 50 in a second."""

    async def go() -> list[int]:
        model = sim_transcriber(capacity=50.0)
        await model.start()
        heard: list[Hypothesis] = []

        async def listen() -> None:
            async for answers in model.listen("lane"):
                heard.extend(answer for answer in answers if answer.final)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        options = SpeechOptions(batch=batch)
        for session, payer, seconds in sent:
            model.pay("lane", {session: payer})
            piece = Speech(session, 0, SECOND * seconds, True, options)
            await model.exchange("lane", [piece], [])
        await until(lambda: len(heard) == len(sent), 20)
        listening.cancel()
        await model.stop()
        return [answer.session for answer in heard]

    return asyncio.run(go())


def test_a_quiet_tenants_audio_goes_before_a_flood_that_came_first() -> None:
    flood = [(session, GREEDY, 2) for session in range(10)]
    assert finals(False, *flood, (99, QUIET, 1)).index(99) <= 1


def test_a_quiet_tenants_window_goes_before_those_of_others_jobs() -> None:
    flood = [(session, GREEDY, 5) for session in range(4)]
    assert finals(True, *flood, (99, QUIET, 5)).index(99) <= 1


def test_weights_count_in_an_engine() -> None:
    heavy, light = Payer("heavy", 4.0), Payer("light", 1.0)
    sent = [
        (10 * number + at, payer, 1)
        for number in range(8)
        for at, payer in enumerate((heavy, light))
    ]
    first = [session % 10 for session in finals(False, *sent)[:5]]
    assert first.count(0) >= 3


def test_live_audio_goes_before_recordings_of_any_tenant() -> None:
    async def go() -> list[int]:
        model = sim_transcriber(capacity=20.0)
        await model.start()
        heard: list[int] = []

        async def listen() -> None:
            async for answers in model.listen("lane"):
                heard.extend(answer.session for answer in answers if answer.final)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        model.pay("lane", {1: QUIET, 2: GREEDY})
        await model.exchange(
            "lane", [Speech(1, 0, SECOND * 5, True, SpeechOptions(batch=True))], []
        )
        live = [Speech(2, number, SECOND, True, SpeechOptions()) for number in range(3)]
        await model.exchange("lane", live, [])
        await until(lambda: len(heard) == 4, 20)
        listening.cancel()
        await model.stop()
        return heard

    assert asyncio.run(go()) == [2, 2, 2, 1]


def test_the_processor_drops_what_has_left() -> None:
    async def go() -> None:
        model = sim_transcriber(capacity=1.0)
        await model.start()
        listening = model.listen("lane")
        await anext(listening)
        pieces = [Speech(session, 0, SECOND * 60, True, SpeechOptions()) for session in range(5)]
        await model.exchange("lane", pieces, [])
        await until(lambda: model.waiting() == 4)
        await model.exchange("lane", [], list(range(5)))
        await until(lambda: model.waiting() == 0)
        await listening.aclose()  # type: ignore[attr-defined]
        await model.stop()

    asyncio.run(go())


def test_a_batch_takes_whose_turn_it_is() -> None:
    async def go() -> None:
        work = Slow()
        batcher: Batcher[int, int] = Batcher(work, 2)
        tasks = []
        for item, payer in ((1, GREEDY), (2, GREEDY), (3, GREEDY), (4, GREEDY), (5, QUIET)):
            with paying(payer):
                tasks.append(asyncio.create_task(batcher.do(item)))
            await until(lambda: work.batches)
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*tasks)
        assert work.batches == [[1], [5, 2], [3, 4]] or work.batches == [[1], [2, 5], [3, 4]]
        await batcher.stop()

    asyncio.run(go())


def test_a_requests_task_knows_who_pays() -> None:
    """And so does all that it awaits, as a batcher or vLLM's priorities."""
    from deployments.fairness import PAYER

    class Engine:
        name = "it"

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        def generated(self) -> int:
            return 0

    class Model(RequestModel[Any]):
        async def _stream(self, here: Lane[Any, Any], request: Any) -> None:
            payers.append(PAYER.get())

    async def go() -> None:
        model = Model(Engine())
        listening = model.listen("lane")
        await anext(listening)
        model.pay("lane", {1: GREEDY, 2: QUIET})
        await model.exchange("lane", [SpeechRequest(it, "hi", "v") for it in (1, 2)], [])
        await until(lambda: len(payers) == 2)
        await model.exchange("lane", [], [1, 2])
        assert model._lanes["lane"].payers == {}
        await listening.aclose()  # type: ignore[attr-defined]

    payers: list[Payer] = []
    asyncio.run(go())
    assert payers == [GREEDY, QUIET]
