"""One batch across requests: everything that waits when the model becomes free is run together.

The work runs in a thread, one batch at a time. Cancelled items leave the queue; in a running batch
`BatchItem.cancelled` says so, for work that can stop early. When a batch does not fit into memory,
its items are tried one by one, and only those that do not fit alone fail.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from deployments.fairness import PAYER, FairShares
from deployments.interfaces import EngineFailed

log = logging.getLogger("voxray.batcher")

Item = TypeVar("Item")
Result = TypeVar("Result")

ALIKE = 2.0
"""Items share a batch when none is more than twice as large as the first, or less than half:
beyond that most of the batch would be padding."""


class BatchItem(Generic[Item, Result]):
    def __init__(self, item: Item, size: int) -> None:
        self.item = item
        self.size = size
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def cancelled(self) -> bool:
        return self.answer.cancelled()


class BatchFailed(Exception):
    """The work raised; the cause says what."""


Jobs = Sequence[BatchItem[Item, Result]]


class Batcher(Generic[Item, Result]):
    """`work` makes one result of each item, in a thread; a batch has `most` items at most."""

    def __init__(self, work: Callable[[Jobs[Item, Result]], Sequence[Result]], most: int) -> None:
        self._work = work
        self._most = most
        self._order = itertools.count()
        self._shares = FairShares()
        self._waiting: list[tuple[int, float, int, BatchItem[Item, Result]]] = []
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.batches = 0

    async def do(self, item: Item, size: int = 1, rank: int = 0) -> Result:
        """The result for one item; lower ranks go first, and then the `PAYER` who has had the
        least. Raises what the work raises."""
        job: BatchItem[Item, Result] = BatchItem(item, size)
        ticket = self._shares.ticket(PAYER.get(), size, rank > 0)
        heapq.heappush(self._waiting, (rank, ticket.rank, next(self._order), job))
        self._filled.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await job.answer
        finally:
            self._shares.end(ticket)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            self._task = None
        for *_, job in self._waiting:
            job.answer.cancel()
        self._waiting.clear()

    async def _run(self) -> None:
        """Owned by `_task`."""
        while True:
            await self._filled.wait()
            jobs = self._take()
            if jobs:
                await self._together(jobs)

    def _take(self) -> list[BatchItem[Item, Result]]:
        """The first in the queue, and those after it of similar size."""
        taken: list[BatchItem[Item, Result]] = []
        left = []
        while self._waiting and len(taken) < self._most:
            entry = heapq.heappop(self._waiting)
            job = entry[-1]
            if job.cancelled():
                continue
            if not taken or 1 / ALIKE <= job.size / taken[0].size <= ALIKE:
                taken.append(job)
            else:
                left.append(entry)
        for entry in left:
            heapq.heappush(self._waiting, entry)
        if not self._waiting:
            self._filled.clear()
        return taken

    async def _together(self, jobs: list[BatchItem[Item, Result]]) -> None:
        self.batches += 1
        try:
            results = await asyncio.to_thread(self._work, jobs)
            answered = list(zip(jobs, results, strict=True))
        except (
            Exception
        ) as error:  # a model may raise anything; it belongs to the requests of the batch
            await self._failed(jobs, error)
            return
        for job, result in answered:
            if not job.answer.done():
                job.answer.set_result(result)

    async def _failed(self, jobs: list[BatchItem[Item, Result]], error: Exception) -> None:
        if len(jobs) > 1 and out_of_memory(error):
            log.warning("batch_too_large", extra={"items": len(jobs)})
            for job in jobs:
                await self._together([job])
            return
        for job in jobs:
            if not job.answer.done():
                job.answer.set_exception(failure_of(error))


def out_of_memory(error: Exception) -> bool:
    """PyTorch's own error, and what its CPU allocator raises."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def failure_of(error: Exception) -> Exception:
    """A new exception for each item, because raising one adds to its traceback.

    The text of an `EngineFailed` goes to the client; anything else becomes the cause of a
    `BatchFailed`.
    """
    if out_of_memory(error):
        return EngineFailed("the request does not fit into the engine's memory")
    failure = EngineFailed(str(error)) if isinstance(error, EngineFailed) else BatchFailed()
    failure.__cause__ = error
    return failure
