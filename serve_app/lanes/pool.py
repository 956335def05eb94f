"""The lanes from this ingress to the replicas of one deployment.

A lane sends what its streams have for its replica as one batch. The next batch follows when the
replica has taken the last one, and not before the batch interval has passed, unless an item is
urgent: under load batches grow instead of becoming more frequent. A stream stays on its lane,
because its state is in that replica. When the replica dies, drains or stops answering, its streams
are attached to another one, and their owners send again what has no answer yet.
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
"""An idle lane sends an empty batch this often, so that each side notices that the other died."""

SURVEY_S = 2.0
"""How often the replicas of a deployment are listed."""

FIRST_SURVEY_S = 0.2
"""The same while there is no lane and streams wait for one."""

RETRY_S = 4.0
"""After a failure no lane to the replica is opened for at most this long, and at least half of it:
Serve lists dead replicas for a while."""


class Answer(Protocol):
    @property
    def session(self) -> int: ...


class Connection(Protocol):
    """One model replica, as a lane sees it. Both methods raise when the replica is gone."""

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        """Send; returns when the replica has taken it. `sessions`: streams on the lane."""

    async def receive(self) -> Sequence[Answer]: ...

    def close(self) -> None: ...


class ReplicaSet(Protocol):
    """All replicas of one deployment."""

    async def replicas(self) -> list[str]: ...

    async def connect(self, name: str) -> Connection: ...


class StreamOwner(Protocol):
    """A session or a request: it gets what happens on its stream."""

    def attached(self) -> None:
        """The stream now reaches a replica that knows nothing of it."""

    def answered(self, answer: Any) -> None: ...

    def busy(self) -> bool:
        """The replica owes an answer: if it dies now, this stream may be the cause."""

    def quarantined(self) -> None:
        """The work of this stream crashed two replicas: it must not be sent again."""


class LaneTimings(NamedTuple):
    batch_interval_s: float
    timeout_s: float
    """A replica that needs longer to take a batch is frozen."""


class Drained(Exception):
    """Serve no longer lists the replica."""


class LaneStream:
    """One owner's stream, on a lane or waiting for one; while it waits its items are dropped."""

    __slots__ = ("_lanes", "key", "lane", "owner", "suspect")

    def __init__(self, lanes: "LanePool", owner: StreamOwner) -> None:
        self._lanes = lanes
        self.owner = owner
        self.lane: ReplicaLane | None = None
        self.key = 0
        self.suspect = False

    def answered(self, answer: Any) -> None:
        self.owner.answered(answer)
        if self.suspect and not self.owner.busy():
            self._lanes.clear(self)

    def put(self, item: Any, urgent: bool = False) -> None:
        """`item` is sent after the stream's key, as a value of the lane's item type."""
        if self.lane:
            self.lane.put((self.key, *item), urgent)

    def leave(self) -> None:
        self._lanes.leave(self)


class ReplicaLane:
    """All streams to one replica."""

    def __init__(self, name: str, timings: LaneTimings, item_type: Any) -> None:
        self.name = name
        self._timings = timings
        self._item_type = item_type
        self._keys = itertools.count()
        self.streams: dict[int, LaneStream] = {}
        self._batch: list[Any] = []
        self._left: list[int] = []
        self._ready = asyncio.Event()
        self._urgent = asyncio.Event()
        self._draining = False

    def drain(self) -> None:
        """The replica is shutting down: leave it now."""
        self._draining = True
        self._urgent.set()
        self._ready.set()

    def attach(self, stream: LaneStream) -> None:
        stream.lane, stream.key = self, next(self._keys)
        self.streams[stream.key] = stream
        stream.owner.attached()

    def detach(self, stream: LaneStream) -> None:
        del self.streams[stream.key]
        stream.lane = None
        self._left.append(stream.key)
        self._ready.set()

    def put(self, item: tuple[Any, ...], urgent: bool) -> None:
        self._batch.append(self._item_type._make(item))
        self._ready.set()
        if urgent:
            self._urgent.set()

    async def run(self, replica_set: ReplicaSet) -> None:
        """Send and receive until the replica fails; raises the cause."""
        async with asyncio.timeout(self._timings.timeout_s):
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
            await _wait(self._ready, HEARTBEAT_S)
            if self._draining:
                raise Drained
            not_before = loop.time() + self._timings.batch_interval_s
            batch, left = self._take()
            async with asyncio.timeout(self._timings.timeout_s):
                await connection.exchange(batch, left, len(self.streams))
            await _wait(self._urgent, not_before - loop.time())

    def _take(self) -> tuple[list[Any], list[int]]:
        """What waits to be sent, without items of streams that have left."""
        batch, left = self._batch, self._left
        self._batch, self._left = [], []
        if left:
            gone = set(left)
            batch = [item for item in batch if item[0] not in gone]
        self._ready.clear()
        self._urgent.clear()
        return batch, left


class LanePool:
    """All lanes to one deployment; they exist while `run` runs."""

    def __init__(self, replica_set: ReplicaSet, timings: LaneTimings, item_type: type) -> None:
        self._replica_set = replica_set
        self._timings = timings
        self._item_type = item_type
        self._lanes: dict[str, ReplicaLane] = {}
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
        """A suspect was answered, or has left: try the next one."""
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
            async with asyncio.timeout(self._timings.timeout_s):
                return await self._replica_set.replicas()
        except Exception as error:  # any error of Ray: keep the present lanes and try again
            log.warning("could not list the replicas: %s", type(error).__name__)
            return list(self._lanes)

    def _open_lanes(self, tasks: asyncio.TaskGroup, names: list[str]) -> None:
        now = asyncio.get_running_loop().time()
        for name in names:
            if name not in self._lanes and self._closed_until.get(name, 0.0) < now:
                lane = self._lanes[name] = ReplicaLane(name, self._timings, self._item_type)
                tasks.create_task(self._carry(lane))
        for name in self._lanes.keys() - set(names):
            self._lanes[name].drain()
        waiting, self._waiting = self._waiting, {}
        for stream in waiting:
            self.attach(stream)

    async def _carry(self, lane: ReplicaLane) -> None:
        try:
            await lane.run(self._replica_set)
        except Exception as error:  # a replica can fail in any way; its streams move on
            log.warning("lane to %s lost: %s", lane.name, _name(error))
            busy = [stream for stream in lane.streams.values() if stream.owner.busy()]
            self._lose(lane, [] if _name(error) == Drained.__name__ else busy)

    def _lose(self, lane: ReplicaLane, busy: list[LaneStream]) -> None:
        """`busy`: the streams whose work may have crashed the replica."""
        self.losses += 1
        now = asyncio.get_running_loop().time()
        self._closed_until[lane.name] = now + backoff_s(RETRY_S, 1)
        del self._lanes[lane.name]
        self._changed.set()
        culprit = self._quarantine.lost(busy)
        for stream in busy:
            stream.suspect = stream is not culprit
        for stream in list(lane.streams.values()):
            stream.lane = None
            if stream is culprit:
                log.error("a request that crashed two replicas is quarantined")
                stream.owner.quarantined()
            self.attach(stream)
        if held := self._quarantine.next_trial():
            self.attach(held)

    def attach(self, stream: LaneStream) -> None:
        """Attach to the lane with the fewest streams, now or as soon as there is a lane."""
        if self._quarantine.must_wait(stream):
            return
        if self._lanes:
            min(self._lanes.values(), key=lambda lane: len(lane.streams)).attach(stream)
        else:
            self._waiting[stream] = None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, but at most `seconds`."""
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
