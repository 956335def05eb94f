"""Many sessions over few calls: a lane joins this ingress to one model replica.

A lane gathers what its sessions have for the replica and sends it in one call; the next call leaves
when the last has returned, and no sooner than a tick, unless something urgent waits. Under load
the calls carry more instead of becoming more. A lane is sticky: a session's state lives in the
replica it reaches. When the replica dies, drains or stops answering, its sessions are attached in
another lane and told so; they then say everything again that had no answer yet.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from serve_app.backoff import backoff_s
from serve_app.lanes.quarantine import Quarantine

log = logging.getLogger("voxray.lanes")

HEARTBEAT_S = 2.0
"""An idle lane calls this often, so that each side learns of the other's death."""

SURVEY_S = 2.0
"""How often the replicas of a deployment are counted."""

FIRST_SURVEY_S = 0.2
"""The same while there is no lane: sessions wait for one."""


RETRY_S = 4.0
"""A replica that failed is left alone for this long at most, and for half of it at least: dead ones
are counted for a while yet."""


class Answer(Protocol):
    @property
    def session(self) -> int: ...


class Connection(Protocol):
    """One model replica, as a lane sees it. Both methods raise when the replica is gone."""

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        """Returns when the replica has taken it. `sessions` ride the lane now."""

    async def receive(self) -> Sequence[Answer]: ...

    def close(self) -> None: ...


class ReplicaSet(Protocol):
    """All replicas of one deployment."""

    async def replicas(self) -> list[str]: ...

    async def connect(self, name: str) -> Connection: ...


class StreamOwner(Protocol):
    """A session on a lane."""

    def attached(self) -> None:
        """A replica that knows nothing of you is now at the other end."""

    def answered(self, answer: Any) -> None: ...

    def busy(self) -> bool:
        """The replica owes an answer: if it ends now, this may be why."""

    def quarantined(self) -> None:
        """What you asked has ended two replicas: it is not asked again."""


class LaneTimings(NamedTuple):
    tick_s: float
    patience_s: float
    """A call that takes longer means that the replica is frozen."""


class Drained(Exception):
    """Serve no longer counts the replica among those to use."""


class LaneStream:
    """A owner's place: on a lane, or waiting for one, when what it puts is dropped."""

    __slots__ = ("_lanes", "key", "lane", "owner", "suspect")

    def __init__(self, lanes: "Lanes", owner: StreamOwner) -> None:
        self._lanes = lanes
        self.owner = owner
        self.lane: Lane | None = None
        self.key = 0
        self.suspect = False

    def answered(self, answer: Any) -> None:
        self.owner.answered(answer)
        if self.suspect and not self.owner.busy():
            self._lanes.clear(self)

    def put(self, item: Any, urgent: bool = False) -> None:
        """`item` is a tuple whose place for the session's key is filled in here."""
        if self.lane:
            self.lane.put((self.key, *item), urgent)

    def leave(self) -> None:
        self._lanes.leave(self)


class Lane:
    """One replica's worth of sessions."""

    def __init__(self, name: str, terms: LaneTimings, wrap: Any) -> None:
        self.name = name
        self._terms = terms
        self._wrap = wrap
        self._keys = itertools.count()
        self.streams: dict[int, LaneStream] = {}
        self._batch: list[Any] = []
        self._left: list[int] = []
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._draining = False

    def drain(self) -> None:
        """The replica is on its way out: leave it before it goes."""
        self._draining = True
        self._urgent.set()
        self._some.set()

    def attach(self, stream: LaneStream) -> None:
        stream.lane, stream.key = self, next(self._keys)
        self.streams[stream.key] = stream
        stream.owner.attached()

    def detach(self, stream: LaneStream) -> None:
        del self.streams[stream.key]
        stream.lane = None
        self._left.append(stream.key)
        self._some.set()

    def put(self, item: tuple[Any, ...], urgent: bool) -> None:
        self._batch.append(self._wrap._make(item))
        self._some.set()
        if urgent:
            self._urgent.set()

    async def run(self, replica_set: ReplicaSet) -> None:
        """Carry until the replica fails; then raise what told of it."""
        async with asyncio.timeout(self._terms.patience_s):
            connection = await replica_set.connect(self.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(connection))
                tasks.create_task(self._send(connection))
        finally:
            connection.close()

    async def _receive(self, connection: Connection) -> None:
        while True:
            for answer in await connection.receive():
                stream = self.streams.get(answer.session)
                if stream:
                    stream.answered(answer)

    async def _send(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _wait(self._some, HEARTBEAT_S)
            if self._draining:
                raise Drained
            leaves_at = loop.time() + self._terms.tick_s
            batch, left = self._take()
            async with asyncio.timeout(self._terms.patience_s):
                await connection.exchange(batch, left, len(self.streams))
            await _wait(self._urgent, leaves_at - loop.time())

    def _take(self) -> tuple[list[Any], list[int]]:
        """What waits; but of those who left nothing any more: the replica has forgotten them."""
        batch, left = self._batch, self._left
        self._batch, self._left = [], []
        if left:
            gone = set(left)
            batch = [item for item in batch if item[0] not in gone]
        self._some.clear()
        self._urgent.clear()
        return batch, left


class Lanes:
    """All lanes from this ingress to one deployment, while `run` runs."""

    def __init__(self, replica_set: ReplicaSet, terms: LaneTimings, wrap: type) -> None:
        self._replica_set = replica_set
        self._terms = terms
        self._wrap = wrap
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[LaneStream, None] = {}
        self._changed = asyncio.Event()
        self._closed_until: dict[str, float] = {}
        self._quarantine: Quarantine[LaneStream] = Quarantine()
        self.losses = 0

    def leave(self, stream: LaneStream) -> None:
        self._waiting.pop(stream, None)
        if stream.lane:
            stream.lane.detach(stream)
        if stream.suspect:
            self.clear(stream)

    def clear(self, stream: LaneStream) -> None:
        """A suspect was answered, or left: the next one is tried."""
        stream.suspect = False
        self._quarantine.cleared(stream)
        if held := self._quarantine.next_trial():
            self.attach(held)

    @property
    def count(self) -> int:
        return len(self._lanes)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._open_lanes(tasks, await self._survey())
                self._changed.clear()
                await _wait(self._changed, SURVEY_S if self._lanes else FIRST_SURVEY_S)

    async def _survey(self) -> list[str]:
        try:
            async with asyncio.timeout(self._terms.patience_s):
                return await self._replica_set.replicas()
        except Exception as error:  # whatever Ray raises: the lanes at hand go on, we ask again
            log.warning("the replicas could not be counted: %s", type(error).__name__)
            return list(self._lanes)

    def _open_lanes(self, tasks: asyncio.TaskGroup, names: list[str]) -> None:
        now = asyncio.get_running_loop().time()
        for name in names:
            if name not in self._lanes and self._closed_until.get(name, 0.0) < now:
                lane = self._lanes[name] = Lane(name, self._terms, self._wrap)
                tasks.create_task(self._carry(lane))
        for name in self._lanes.keys() - set(names):
            self._lanes[name].drain()
        waiting, self._waiting = self._waiting, {}
        for stream in waiting:
            self.attach(stream)

    async def _carry(self, lane: Lane) -> None:
        try:
            await lane.run(self._replica_set)
        except Exception as error:  # a replica can fail in any way; its sessions move on
            log.warning("lane to %s lost: %s", lane.name, _name(error))
            at_work = [stream for stream in lane.streams.values() if stream.owner.busy()]
            self._lose(lane, [] if _name(error) == Drained.__name__ else at_work)

    def _lose(self, lane: Lane, busy: list[LaneStream]) -> None:
        """`busy` are the streams whose work may have ended the replica."""
        self.losses += 1
        now = asyncio.get_running_loop().time()
        self._closed_until[lane.name] = now + backoff_s(RETRY_S, 1)
        del self._lanes[lane.name]
        self._changed.set()
        guilty = self._quarantine.lost(busy)
        for stream in busy:
            stream.suspect = stream is not guilty
        for stream in list(lane.streams.values()):
            stream.lane = None
            if stream is guilty:
                log.error("a request that ended two replicas is not asked again")
                stream.owner.quarantined()
            self.attach(stream)
        if held := self._quarantine.next_trial():
            self.attach(held)

    def attach(self, stream: LaneStream) -> None:
        """Seat an owner in the emptiest lane, now or as soon as there is one."""
        if self._quarantine.must_wait(stream):
            return
        if self._lanes:
            min(self._lanes.values(), key=lambda lane: len(lane.streams)).attach(stream)
        else:
            self._waiting[stream] = None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, but no longer than so many seconds."""
    if seconds <= 0 or event.is_set():
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _name(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _name(error.exceptions[0])
    return type(error).__name__
