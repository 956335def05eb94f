"""The lanes from this ingress to the replicas of one deployment.

A stream stays on its lane, because its state is in that replica. When the replica dies or freezes,
its streams join another one, and their owners send again what has no answer yet. When Serve ends
the replica, they move as soon as it owes them nothing, if there is another one.
"""

import asyncio
import logging
from typing import NamedTuple, Protocol

from serve_app.backoff import backoff_s
from serve_app.lanes.lane import (
    BatchInterval,
    Connection,
    Drained,
    Frozen,
    LaneStream,
    ReplicaLane,
    wait,
)
from serve_app.lanes.load import LaneSignals
from serve_app.lanes.quarantine import Quarantine

log = logging.getLogger("voxray.lanes")

SILENCE_S = 3.0
"""A replica that has sent nothing for this long is frozen; it reports twice a second."""

SURVEY_S = 2.0
"""How often the replicas of a deployment are listed."""

FIRST_SURVEY_S = 0.2
"""The same while there is no lane and streams wait for one."""

UNSERVED_S = 1.0
"""How long there must be no lane before the owners of the streams are told. A replica is often
replaced sooner than that."""

RETRY_S = 4.0
"""After a failure no lane to the replica is opened for at most this long, and at least half of it:
Serve lists dead replicas for a while."""


class ReplicaSet(Protocol):
    """All replicas of one deployment."""

    async def replicas(self) -> list[str]: ...

    async def connect(self, name: str) -> Connection:
        """Returns when the replica has answered."""


class LaneTimings(NamedTuple):
    batch_interval_s: float
    silence_s: float = SILENCE_S


class LanePool:
    """All lanes to one deployment; they exist while `run` runs."""

    def __init__(self, replica_set: ReplicaSet, timings: LaneTimings, item_type: type) -> None:
        self._replica_set = replica_set
        self._silence_s = timings.silence_s
        self._interval = BatchInterval(timings.batch_interval_s)
        self._item_type = item_type
        self._lanes: dict[str, ReplicaLane] = {}
        self._opening: set[str] = set()
        self._waiting: dict[LaneStream, None] = {}
        self._changed = asyncio.Event()
        self._closed_until: dict[str, float] = {}
        self._quarantine: Quarantine[LaneStream] = Quarantine()
        self._telling: asyncio.TimerHandle | None = None
        self._announced = 0
        self.losses = 0

    @property
    def level(self) -> int:
        """The highest quality level of all who use these replicas."""
        return max([lane.level for lane in self._lanes.values()], default=0)

    def announce(self, level: int) -> None:
        """Let all who use these replicas know our quality level."""
        self._announced = level
        for lane in self._lanes.values():
            lane.announce(level)

    def signals(self) -> LaneSignals:
        """How loaded lanes and replicas were in the last second."""
        now = asyncio.get_running_loop().time()
        each = [lane.signals(now) for lane in self._lanes.values()]
        return LaneSignals(*map(max, zip(*each, strict=True))) if each else LaneSignals()

    def slow_down(self, factor: float) -> None:
        """Multiply the batch interval, so that batches grow: 1 is normal."""
        self._interval.slow_down(factor)

    @property
    def count(self) -> int:
        return len(self._lanes)

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

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._open_lanes(tasks, await self._survey())
                    self._changed.clear()
                    await wait(self._changed, SURVEY_S if self._lanes else FIRST_SURVEY_S)
        finally:
            self._end_telling()

    async def _survey(self) -> list[str]:
        try:
            async with asyncio.timeout(self._silence_s):
                return await self._replica_set.replicas()
        except Exception as error:  # any error of Ray: keep the present lanes and try again
            log.warning("replicas_unknown", extra={"cause": type(error).__name__})
            return list(self._lanes)

    def _open_lanes(self, tasks: asyncio.TaskGroup, names: list[str]) -> None:
        now = asyncio.get_running_loop().time()
        for name in names:
            known = name in self._lanes or name in self._opening
            if not known and self._closed_until.get(name, 0.0) < now:
                self._opening.add(name)
                tasks.create_task(self._carry(name))
        for name, lane in self._lanes.items():
            lane.draining = name not in names
        for lane in [lane for lane in self._lanes.values() if lane.draining]:
            self._empty(lane)

    async def _carry(self, name: str) -> None:
        """Streams join the lane when its replica has answered, because a frozen one still lets
        clients connect."""
        try:
            async with asyncio.timeout(self._silence_s):
                connection = await self._replica_set.connect(name)
        except Exception as error:  # a replica can fail in any way
            log.warning("lane_refused", extra={"to": name, "cause": _name(error)})
            self._close(name)
            return
        finally:
            self._opening.discard(name)
        lane = ReplicaLane(name, connection, self._interval, self._item_type)
        self._open(lane)
        try:
            await lane.run(self._silence_s)
        except Exception as error:  # a replica can fail in any way; its streams move on
            log.warning("lane_lost", extra={"to": name, "cause": _name(error)})
            self._lose(lane, _name(error) in (Drained.__name__, Frozen.__name__))

    def _end_telling(self) -> None:
        if self._telling:
            self._telling.cancel()
            self._telling = None

    def _tell(self) -> None:
        self._telling = None
        for stream in list(self._waiting):
            stream.owner.unserved()

    def _open(self, lane: ReplicaLane) -> None:
        self._end_telling()
        log.info("lane_opened", extra={"to": lane.name})
        self._lanes[lane.name] = lane
        lane.announce(self._announced)
        waiting, self._waiting = self._waiting, {}
        for stream in waiting:
            self.attach(stream)

    def _empty(self, lane: ReplicaLane) -> None:
        """Move streams from a draining lane; it ends when none is left."""
        if all(other.draining for other in self._lanes.values()):
            return
        for stream in [it for it in lane.streams.values() if not (it.attached and it.owner.busy())]:
            lane.detach(stream)
            self.attach(stream)
        if not lane.streams:
            lane.end()

    def _close(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self._closed_until[name] = now + backoff_s(RETRY_S, 1)
        self._changed.set()

    def _lose(self, lane: ReplicaLane, innocent: bool) -> None:
        """`innocent`: no work of the lane's streams crashed the replica."""
        self.losses += 1
        joined = [] if innocent else [it for it in lane.streams.values() if it.attached]
        busy = [it for it in joined if it.owner.busy()]
        del self._lanes[lane.name]
        for other in self._lanes.values() if busy else ():
            other.doubt()
        self._close(lane.name)
        culprit = self._quarantine.lost(busy)
        for stream in busy:
            stream.suspect = stream is not culprit
        for stream in list(lane.streams.values()):
            stream.lane = None
            if stream is culprit:
                log.error("request_quarantined", extra={"tenant": stream.payer.tenant})
                stream.owner.quarantined()
            self.attach(stream)
        if held := self._quarantine.next_trial():
            self.attach(held)
        if not self._lanes and not self._telling:
            self._telling = asyncio.get_running_loop().call_later(UNSERVED_S, self._tell)

    def attach(self, stream: LaneStream) -> None:
        """Attach to the lane with the fewest streams, now or as soon as there is a lane."""
        if self._quarantine.must_wait(stream):
            return
        if self._lanes:
            lanes = self._lanes.values()
            min(lanes, key=lambda lane: (lane.draining, len(lane.streams))).join(stream)
        else:
            self._waiting[stream] = None


def _name(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _name(error.exceptions[0])
    return type(error).__name__
