"""Lanes in front of an engine, which is loaded once. What the lanes carry is up to subclasses."""

from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

from deployments.once import Once
from deployments.outbox import Outbox


class Lane(Protocol):
    """One lane: what waits to be sent on it, and the state of its sessions."""

    out: Outbox[Any]


L = TypeVar("L", bound=Lane)


class LaneModel(Generic[L]):
    """`listen` and loading, as `LaneServer` needs them; subclasses add `exchange`."""

    def __init__(self) -> None:
        self._lanes: dict[str, L] = {}
        self._load = Once(self.load)

    async def load(self) -> None:
        """Start the engine."""
        raise NotImplementedError

    def new_lane(self) -> L:
        raise NotImplementedError

    async def close_lane(self, name: str, lane: L) -> None:
        """Stop the work of a lane that has ended."""
        raise NotImplementedError

    async def start(self) -> None:
        """Load the engine, once. Raises what the engine raises when it cannot load."""
        await self._load()

    async def listen(self, lane: str) -> AsyncIterator[list[Any]]:
        """Open a lane and stream its answers. An empty first item means that it is open; the
        lane, and the work of its sessions, ends with this stream."""
        await self.start()
        here = self._lanes[lane] = self.new_lane()
        try:
            yield []
            while True:
                yield await here.out.take()
        finally:
            del self._lanes[lane]
            await self.close_lane(lane, here)
