"""Lanes of requests in front of an engine: one task per request streams its answers.

Independent of the engine. A request is cancelled when its client leaves, and that stops the model,
because the engine's iterator is closed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from deployments.fairness import PAYER
from deployments.lanes import Lane, LaneModel, reporting_failures

Task = asyncio.Task[None]


class Engine(Protocol):
    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def generated(self) -> int: ...


E_ = TypeVar("E_", bound=Engine)


class RequestModel(LaneModel[Any, Task, Any], Generic[E_]):
    """Chat and Speaker implement `answer`."""

    max_unsent = 256
    """Then its requests pause."""

    def __init__(self, engine: E_) -> None:
        super().__init__(engine.start, engine.stop)
        self.engine = engine
        self.on_ended: Callable[[Any, float], None] = lambda request, began: None
        """Gets each request when it has ended, and when it began."""

    def stats(self) -> dict[str, int]:
        """How much the engine has generated, and how many requests it works on."""
        running = sum(len(lane.sessions) for lane in self._lanes.values())
        return {"made": self.engine.generated(), "running": running}

    def answer(self, request: Any) -> AsyncIterator[Any]:
        """The answers to a request; the last one has `ended`."""
        raise NotImplementedError

    def failed(self, request: Any, reason: str) -> Any:
        """The answer for a request that failed."""
        raise NotImplementedError

    async def take(self, here: Lane[Task, Any], batch: Sequence[Any]) -> Sequence[Any]:
        for request in batch:
            PAYER.set(here.payer(request.session))  # the new task gets a copy
            here.sessions[request.session] = asyncio.create_task(self._run(here, request))
        return ()

    async def drop(self, work: Sequence[Task]) -> None:
        for task in work:
            task.cancel()

    async def _run(self, here: Lane[Task, Any], request: Any) -> None:
        """Owned by the lane; ends with the last answer, or is cancelled."""
        began = time.monotonic()
        try:
            with reporting_failures(lambda reason: here.out.put(self.failed(request, reason))):
                await self._stream(here, request)
        finally:
            here.sessions.pop(request.session, None)
            self.on_ended(request, began)

    async def _stream(self, here: Lane[Task, Any], request: Any) -> None:
        began = time.monotonic()
        async with aclosing(self.answer(request)) as answers:  # type: ignore[type-var]
            async for answer in answers:
                await here.out.room()
                spent_ms = (time.monotonic() - began) * 1000
                here.out.put(answer._replace(engine_ms=round(spent_ms, 2)))
