"""Lanes of requests in front of an engine: one task per request streams its answers.

Independent of the engine. A request is cancelled when its client leaves, and that stops the model,
because the engine's iterator is closed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from deployments.interfaces import ENGINE_FAILED, EngineDied, EngineFailed
from deployments.lanes import LaneModel
from deployments.outbox import Outbox

log = logging.getLogger("voxray.requests")

MAX_UNSENT = 256
"""Answers that may wait in one lane; then its requests pause."""


class Engine(Protocol):
    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def generated(self) -> int: ...


E_ = TypeVar("E_", bound=Engine)


class _Lane:
    def __init__(self) -> None:
        self.out: Outbox[Any] = Outbox(MAX_UNSENT)
        self.running: dict[int, asyncio.Task[None]] = {}


class RequestModel(LaneModel[_Lane], Generic[E_]):
    """Implements `interfaces.Requests` with an engine; Chat and Speaker implement `answer`."""

    def __init__(self, engine: E_) -> None:
        super().__init__()
        self.engine = engine

    async def load(self) -> None:
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()

    def new_lane(self) -> _Lane:
        return _Lane()

    async def close_lane(self, name: str, lane: _Lane) -> None:
        for task in lane.running.values():
            task.cancel()

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> None:
        """Start the requests of the batch; cancel those in `left`."""
        here = self._lanes[lane]
        for request in batch:
            if request.session not in left:
                task = asyncio.create_task(self._run(here, request))
                here.running[request.session] = task
        for session in left:
            left_task = here.running.pop(session, None)
            if left_task:
                left_task.cancel()

    def stats(self) -> dict[str, int]:
        """How much the engine has generated, and how many requests it works on."""
        running = sum(len(lane.running) for lane in self._lanes.values())
        return {"made": self.engine.generated(), "running": running}

    def answer(self, request: Any) -> AsyncIterator[Any]:
        """The answers to a request; the last one has `ended`."""
        raise NotImplementedError

    def failed(self, request: Any, reason: str) -> Any:
        """The answer for a request that failed."""
        raise NotImplementedError

    async def _run(self, here: _Lane, request: Any) -> None:
        """Owned by `running`; ends with the last answer, or is cancelled."""
        began = time.monotonic()
        try:
            async with aclosing(self.answer(request)) as answers:  # type: ignore[type-var]
                async for answer in answers:
                    await here.out.room()
                    spent_ms = (time.monotonic() - began) * 1000
                    here.out.put(answer._replace(engine_ms=round(spent_ms, 2)))
        except EngineDied:
            return  # the replica ends; its client tries another
        except EngineFailed as failure:
            here.out.put(self.failed(request, str(failure)))
        except Exception:  # nothing else reports it, and the client would wait forever
            log.exception("a request failed")
            here.out.put(self.failed(request, ENGINE_FAILED))
        finally:
            here.running.pop(request.session, None)
