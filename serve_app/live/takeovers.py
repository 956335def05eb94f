"""Tells the other ingress replicas which sessions were continued here. Best effort: one that cannot
be reached keeps its old connection until that ends by itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from serve_app.live.fence import REPLACED, Claim, End, Fence, SessionElsewhere

log = logging.getLogger("voxray.live")

MOST_WAITING = 10_000

Tell = Callable[[Sequence[Claim]], Awaitable[Sequence[SessionElsewhere]]]
"""Tells all ingress replicas."""

Heard = Callable[[int], None]
"""Gets the samples that older connections of a session have received, as soon as that is known."""


class Takeovers:
    """Works while `run` runs."""

    def __init__(self, fence: Fence, tell: Tell | None) -> None:
        self._fence = fence
        self._tell = tell
        self._waiting: asyncio.Queue[tuple[Claim, End, Heard]] = asyncio.Queue(MOST_WAITING)

    def begin(self, claim: Claim, end: End) -> None:
        """A new session: nobody else can have it."""
        self._fence.enter(claim, end)

    def resume(
        self, before: Claim, claim: Claim, end: End, heard: Heard = lambda samples: None
    ) -> bool:
        """The connection of `before` continues another session. False if a newer one does so."""
        self._fence.leave(before)
        if not self._fence.enter(claim, end):
            return False
        heard(self._fence.heard(claim.origin))
        if self._tell:
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait((claim, end, heard))
        return True

    def leave(self, claim: Claim, heard: int = 0) -> None:
        """Of a connection that has ended; it had received so many samples of its session."""
        self._fence.leave(claim)
        self._fence.remember(claim.origin, heard)

    async def run(self) -> None:
        """Takeovers that arrive while others are being sent go out in one message."""
        while True:
            told = [await self._waiting.get()]
            while not self._waiting.empty():
                told.append(self._waiting.get_nowait())
            await self._tell_all(told)

    async def _tell_all(self, told: list[tuple[Claim, End, Heard]]) -> None:
        assert self._tell
        try:
            answers = await self._tell([claim for claim, _, _ in told])
        except Exception as error:  # any error of Ray
            return log.warning("takeovers_untold", extra={"cause": type(error).__name__})
        known = _joined(answers)
        for claim, end, heard in told:
            answer = known.get(claim.origin, SessionElsewhere(claim.origin))
            heard(answer.heard)
            if answer.newer:
                self._fence.leave(claim)
                end(REPLACED)


def _joined(answers: Sequence[SessionElsewhere]) -> dict[str, SessionElsewhere]:
    """What all replicas together know of each session."""
    known: dict[str, SessionElsewhere] = {}
    for answer in answers:
        known[answer.origin] = answer.and_of(known.get(answer.origin, answer))
    return known
