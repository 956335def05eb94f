"""Tells the other ingress replicas which sessions were continued here. Best effort: one that cannot
be reached keeps its old connection until that ends by itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from serve_app.live.fence import REPLACED, Claim, End, Fence

log = logging.getLogger("voxray.live")

MOST_WAITING = 10_000

Tell = Callable[[Sequence[Claim]], Awaitable[Sequence[str]]]
"""Tells all ingress replicas; the answer is the origins of which one has a newer connection."""


class Takeovers:
    """Works while `run` runs."""

    def __init__(self, fence: Fence, tell: Tell | None) -> None:
        self._fence = fence
        self._tell = tell
        self._waiting: asyncio.Queue[tuple[Claim, End]] = asyncio.Queue(MOST_WAITING)

    def begin(self, claim: Claim, end: End) -> None:
        """A new session: nobody else can have it."""
        self._fence.enter(claim, end)

    def resume(self, before: Claim, claim: Claim, end: End) -> bool:
        """The connection of `before` continues another session. False if a newer one does so."""
        self._fence.leave(before)
        if not self._fence.enter(claim, end):
            return False
        if self._tell:
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait((claim, end))
        return True

    def leave(self, claim: Claim) -> None:
        self._fence.leave(claim)

    async def run(self) -> None:
        """Takeovers that arrive while others are being sent go out in one message."""
        while True:
            told = [await self._waiting.get()]
            while not self._waiting.empty():
                told.append(self._waiting.get_nowait())
            await self._tell_all(told)

    async def _tell_all(self, told: list[tuple[Claim, End]]) -> None:
        assert self._tell
        try:
            replaced = set(await self._tell([claim for claim, _ in told]))
        except Exception as error:  # any error of Ray
            return log.warning("takeovers_untold", extra={"cause": type(error).__name__})
        for claim, end in told:
            if claim.origin in replaced:
                self._fence.leave(claim)
                end(REPLACED)
