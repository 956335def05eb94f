"""Lanes of requests in front of an engine: a task a request, its answers streamed down.

Knows no engine by name. A request whose client has left is cancelled, and that reaches the model:
closing the engine's iterator is what stops it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from deployments.interfaces import EngineDied, EngineFailed
from deployments.once import Once
from deployments.outbox import Outbox

log = logging.getLogger("voxray.requests")

MAX_UNSENT = 256
"""Answers of one lane that may wait; then its engines' iterators are not asked for more."""


class Engine(Protocol):
    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def made(self) -> int: ...


E_ = TypeVar("E_", bound=Engine)


class _Lane:
    def __init__(self) -> None:
        self.out: Outbox[Any] = Outbox(MAX_UNSENT)
        self.running: dict[int, asyncio.Task[None]] = {}


class RequestModel(Generic[E_]):
    """Implements `interfaces.Requests` over an engine; Chat and Speaker say how one is answered."""

    def __init__(self, engine: E_) -> None:
        self.engine = engine
        self._lanes: dict[str, _Lane] = {}
        self._load = Once(engine.start)

    async def start(self) -> None:
        """Load the engine, once; raises what the engine raises when it cannot load."""
        await self._load()

    async def stop(self) -> None:
        await self.engine.stop()

    async def listen(self, lane: str) -> AsyncIterator[list[Any]]:
        """Open a lane and stream its answers; the first item is empty and says: open."""
        await self.start()
        here = self._lanes[lane] = _Lane()
        try:
            yield []
            while True:
                yield await here.out.take()
        finally:
            del self._lanes[lane]
            for task in here.running.values():
                task.cancel()

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> None:
        """Start the requests of the batch, cancel those that were left."""
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
        """How much the engine has made, and for how many it works."""
        running = sum(len(lane.running) for lane in self._lanes.values())
        return {"made": self.engine.made(), "running": running}

    def answer(self, request: Any) -> AsyncIterator[Any]:
        """The answers to a request, the last of which has `ended`."""
        raise NotImplementedError

    def failed(self, request: Any, reason: str) -> Any:
        """The answer that says so."""
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
            return  # the replica goes, and its client asks another
        except EngineFailed as failure:
            here.out.put(self.failed(request, str(failure)))
        except Exception:  # nobody above would see it, and the client would wait for ever
            log.exception("a request failed")
            here.out.put(self.failed(request, "the engine failed"))
        finally:
            here.running.pop(request.session, None)
