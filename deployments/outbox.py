"""Messages that wait to be sent on a lane. Bounded for callers of `room`."""

import asyncio
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """`take` returns everything that waits: a slower reader gets larger batches."""

    def __init__(self, bound: int = 0) -> None:
        self._bound = bound
        self._waiting: list[Item] = []
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, item: Item) -> None:
        self._waiting.append(item)
        self._filled.set()
        if self._bound and len(self._waiting) >= self._bound:
            self._room.clear()

    async def room(self) -> None:
        """Wait until fewer than `bound` items wait, so that a slow reader slows the engine down."""
        await self._room.wait()

    async def take(self) -> list[Item]:
        await self._filled.wait()
        self._filled.clear()
        taken, self._waiting = self._waiting, []
        self._room.set()
        return taken
