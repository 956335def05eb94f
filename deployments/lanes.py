"""Lanes in front of a model: it is loaded once, and has the work of each lane's sessions, which is
dropped when they leave. What the lanes carry is up to subclasses."""

import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from deployments.fairness import NOBODY, Payer
from deployments.interfaces import ENGINE_FAILED, EngineDied, EngineFailed, LaneLost
from deployments.once import Once
from deployments.outbox import Outbox

log = logging.getLogger("voxray.lanes")


class OfSession(Protocol):
    @property
    def session(self) -> int: ...


Item = TypeVar("Item", bound=OfSession)
Work = TypeVar("Work")
Answer = TypeVar("Answer")


class Lane(Generic[Work, Answer]):
    """One lane: what waits to be sent on it, and the work of its sessions."""

    def __init__(self, name: str, max_unsent: int) -> None:
        self.name = name
        self.out: Outbox[Answer] = Outbox(max_unsent)
        self.sessions: dict[int, Work] = {}
        self.payers: dict[int, Payer] = {}
        """Until the session leaves."""

    def payer(self, session: int) -> Payer:
        return self.payers.get(session, NOBODY)

    def work(self, session: int) -> Work:
        """Raises `LaneLost` for a session that did not begin in this lane."""
        try:
            return self.sessions[session]
        except KeyError:
            raise LaneLost(f"session {session} did not begin here") from None


async def _nothing() -> None:
    """For models that need no loading."""


class LaneModel(Generic[Item, Work, Answer]):
    """Implements `interfaces.Lanes`; subclasses add `take` and `drop`."""

    max_unsent = 0
    """Answers that may wait in one lane before `Outbox.room` waits; 0: any number."""

    def __init__(
        self,
        load: Callable[[], Awaitable[None]] = _nothing,
        stop: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self.start = Once(load)
        """Load the engine, once. Raises what the engine raises when it cannot load."""
        self.stop = stop
        self._lanes: dict[str, Lane[Work, Answer]] = {}

    async def listen(self, lane: str) -> AsyncIterator[Sequence[Answer]]:
        """Open a lane and stream its answers. An empty first item means that it is open; the
        lane, and the work of its sessions, ends with this stream."""
        await self.start()
        here = self._lanes[lane] = Lane(lane, self.max_unsent)
        try:
            yield []
            while True:
                yield await here.out.take()
        finally:
            del self._lanes[lane]
            await self._leave(here, list(here.sessions))

    async def exchange(
        self, lane: str, batch: Sequence[Item], left: Sequence[int]
    ) -> Sequence[Answer]:
        """Drop the work of the sessions that have left, and take the batch of the others."""
        here = self._lanes[lane]
        await self._leave(here, left)
        for session in left:
            here.payers.pop(session, None)
        gone = set(left)
        return await self.take(here, [item for item in batch if item.session not in gone])

    def pay(self, lane: str, payers: Mapping[int, Payer]) -> None:
        """See `interfaces.Lanes`."""
        self._lanes[lane].payers.update(payers)

    def waiting(self) -> int:
        """Work that the engine has not begun; 0 for an engine that does not say."""
        return 0

    def stalled(self) -> bool:
        """The engine owes answers and has sent none for longer than it says it may."""
        return False

    async def take(self, here: Lane[Work, Answer], batch: Sequence[Item]) -> Sequence[Answer]:
        """Returns the answers that are available at once; later ones go to `here.out`."""
        raise NotImplementedError

    async def drop(self, work: Sequence[Work]) -> None:
        """Stop the work of sessions that have left."""

    async def _leave(self, here: Lane[Work, Answer], sessions: Iterable[int]) -> None:
        work = [here.sessions.pop(session) for session in sessions if session in here.sessions]
        if work:
            await self.drop(work)


@contextmanager
def reporting_failures(report: Callable[[str], object]) -> Iterator[None]:
    """A failure inside is reported with its reason, or the client would wait forever."""
    try:
        yield
    except EngineDied:
        return  # the replica ends; its client tries another
    except EngineFailed as failure:
        report(str(failure))
    except Exception:
        log.exception("engine_request_failed")
        report(ENGINE_FAILED)
