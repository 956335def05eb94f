"""Whose turn it is where only some work can be done at once."""

import asyncio

import pytest

from deployments.fair_slots import FairSlots
from deployments.fairness import Payer

GREEDY, QUIET = Payer("greedy"), Payer("quiet")


async def in_order(slots: FairSlots, log: list[str], payer: Payer, batch: bool = False) -> None:
    async with slots.slot(payer, 1.0, batch):
        log.append(f"{payer.tenant}{' batch' * batch}")
        await asyncio.sleep(0.01)


def test_a_tenant_that_waits_for_little_goes_before_a_flood() -> None:
    async def go() -> list[str]:
        slots, log = FairSlots(1), list[str]()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(in_order(slots, log, GREEDY))
            await asyncio.sleep(0)
            tasks.create_task(in_order(slots, log, QUIET))
        return log

    assert asyncio.run(go())[:3] == ["greedy", "quiet", "greedy"]


def test_live_work_goes_before_recordings_of_all_tenants() -> None:
    async def go() -> list[str]:
        slots, log = FairSlots(1), list[str]()
        async with asyncio.TaskGroup() as tasks:
            for payer, batch in ((GREEDY, False), (QUIET, True), (GREEDY, False), (GREEDY, True)):
                tasks.create_task(in_order(slots, log, payer, batch))
        return log

    assert asyncio.run(go()) == ["greedy", "greedy", "quiet batch", "greedy batch"]


def test_what_is_cancelled_leaves_its_slot_to_others() -> None:
    async def go() -> None:
        slots, log = FairSlots(1), list[str]()
        held = asyncio.Event()

        async def hold() -> None:
            async with slots.slot(GREEDY):
                await held.wait()

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(in_order(slots, log, QUIET)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        await asyncio.sleep(0)
        held.set()
        await asyncio.sleep(0)
        waiting[1].cancel()  # in the moment in which its turn comes
        await asyncio.gather(*waiting, holding, return_exceptions=True)
        assert log == ["quiet"] and slots._free == 1 and not slots._waiting

    asyncio.run(go())


def test_a_slot_comes_back_when_the_work_fails() -> None:
    async def go() -> None:
        slots = FairSlots(1)
        with pytest.raises(ValueError, match="it"):
            async with slots.slot(GREEDY):
                raise ValueError("it")
        async with asyncio.timeout(5), slots.slot(GREEDY):
            pass

    asyncio.run(go())


def test_a_slot_is_not_lost_with_who_is_cancelled_as_it_becomes_free() -> None:
    async def go() -> list[str]:
        slots, log = FairSlots(1), list[str]()
        held = asyncio.Event()

        async def hold() -> None:
            async with slots.slot(GREEDY):
                await held.wait()

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(in_order(slots, log, QUIET)) for _ in range(2)]
        await asyncio.sleep(0)
        held.set()
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await holding
        return log

    assert asyncio.run(go()) == ["quiet"]
