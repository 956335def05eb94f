"""What waits to go down a lane. Bounded for those who await room in it."""

import asyncio
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """Everything that waits is taken at once: the slower the reader, the larger the items."""

    def __init__(self, bound: int = 0) -> None:
        self._bound = bound
        self._waiting: list[Item] = []
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, item: Item) -> None:
        self._waiting.append(item)
        self._some.set()
        if self._bound and len(self._waiting) >= self._bound:
            self._room.clear()

    async def room(self) -> None:
        """Until fewer than `bound` wait: how a slow reader slows an engine down."""
        await self._room.wait()

    async def take(self) -> list[Item]:
        await self._some.wait()
        self._some.clear()
        taken, self._waiting = self._waiting, []
        self._room.set()
        return taken
