"""One batch across requests; and what is asked of Kokoro before its model is."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from deployments.batcher import Batcher, BatchFailed, BatchItem
from deployments.interfaces import EngineFailed
from deployments.speaker.blend import Part, parts
from deployments.speaker.phonemes import tag
from tests.waiting import until

Jobs = Sequence[BatchItem[Any, Any]]


class Slow:
    """Work that waits until it is told; what it was given is in `batches`."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.go = threading.Event()

    def __call__(self, jobs: Jobs) -> list[Any]:
        self.batches.append([job.item for job in jobs])
        assert self.go.wait(5)
        return [job.item * 10 for job in jobs]


async def begun(
    work: Slow, batcher: Batcher[int, int], *items: tuple[int, int, int]
) -> list[asyncio.Task[int]]:
    """The first alone, and the others while it is at work; each an item, a size and a rank."""
    tasks = []
    for item, size, rank in items:
        tasks.append(asyncio.create_task(batcher.do(item, size, rank)))
        await until(lambda: work.batches)
    await asyncio.sleep(0)  # the last one's task begins
    return tasks


def test_who_waits_goes_together_in_order_of_rank() -> None:
    async def go() -> None:
        work = Slow()
        batcher: Batcher[int, int] = Batcher(work, 3)
        tasks = await begun(work, batcher, (1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 0), (5, 1, 1))
        work.go.set()
        assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]
        assert work.batches == [[1], [4, 2, 3], [5]]
        await batcher.stop()

    asyncio.run(go())


def test_sizes_that_would_be_padding_go_apart() -> None:
    async def go() -> None:
        work = Slow()
        batcher: Batcher[int, int] = Batcher(work, 8)
        tasks = await begun(
            work, batcher, (1, 1, 0), (2, 10, 0), (3, 100, 0), (4, 15, 0), (5, 60, 0)
        )
        work.go.set()
        await asyncio.gather(*tasks)
        assert work.batches == [[1], [2, 4], [3, 5]]
        await batcher.stop()

    asyncio.run(go())


def test_what_is_cancelled_leaves() -> None:
    async def go() -> None:
        work = Slow()
        batcher: Batcher[int, int] = Batcher(work, 8)
        first, second, third = await begun(work, batcher, (1, 1, 0), (2, 1, 0), (3, 1, 0))
        first.cancel()
        second.cancel()
        work.go.set()
        assert await third == 30
        assert work.batches == [[1], [3]]
        await batcher.stop()

    asyncio.run(go())


def test_memory_that_runs_out_fails_only_what_does_not_fit_alone() -> None:
    def work(jobs: Jobs) -> list[Any]:
        if sum(job.item for job in jobs) > 5:
            raise MemoryError
        return [job.item for job in jobs]

    async def go() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, 8)
        asked = (batcher.do(item) for item in (4, 3, 9, 5))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.stop()
        return list(answers)

    four, three, nine, five = asyncio.run(go())
    assert (four, three, five) == (4, 3, 5)
    assert isinstance(nine, EngineFailed) and "memory" in str(nine)


def test_a_model_that_breaks_fails_its_batch_and_goes_on() -> None:
    def work(jobs: Jobs) -> list[Any]:
        return [1 // job.item for job in jobs]

    async def go() -> None:
        batcher: Batcher[int, int] = Batcher(work, 8)
        with pytest.raises(BatchFailed) as failed:
            await batcher.do(0)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        assert await batcher.do(1) == 1
        await batcher.stop()

    asyncio.run(go())


@pytest.mark.parametrize("error", [EngineFailed("no such voice"), MemoryError(), OSError()])
def test_each_item_of_a_failed_batch_has_an_exception_of_its_own(error: Exception) -> None:
    def work(jobs: Jobs) -> list[Any]:
        raise error

    async def go() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, 8)
        asked = (batcher.do(item) for item in (1, 2, 3))
        failures = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.stop()
        return list(failures)

    failures = asyncio.run(go())
    assert len({id(failure) for failure in (*failures, error)}) == 4
    assert all(isinstance(it, EngineFailed) for it in failures) != isinstance(error, OSError)


def test_a_blend_of_voices_is_read_with_its_shares() -> None:
    assert parts("af_heart") == (Part("af_heart", 1.0),)
    assert parts("af_heart(2)+af_bella(1)") == (Part("af_heart", 2 / 3), Part("af_bella", 1 / 3))
    assert parts("a + b(0.5)") == (Part("a", 2 / 3), Part("b", 1 / 3))
    for wrong in ("", "a+", "a(x)", "a(-1)", "a(0)", "a(1)b", "+".join("abcdefghi")):
        with pytest.raises(ValueError):
            parts(wrong)


def test_parts_of_speech_where_spelling_does_not_tell() -> None:
    said = "They use the use of 3 books to read slowly .".split()
    tags: list[str] = []
    for number, word in enumerate(said):
        tags.append(tag(word, tags[-1] if tags else "", number == 0))
    assert tags == ["PRP", "VB", "DT", "NN", "IN", "CD", "NNS", "TO", "VB", "RB", "."]
    assert tag("Paris", "IN", False) == "NNP" and tag("walked", "PRP", False) == "VBD"
    assert tag("$", "", True) == "$" and tag("—", "NN", False) == ":"
