"""One lane: the streams from this ingress to one model replica, and the batches that carry them.

A batch holds what the streams have for the replica. The next one follows when the replica has taken
the last one, and not before the batch interval has passed, unless an item is urgent: under load
batches grow instead of becoming more frequent.

What a stream sends waits here until a batch takes it. Its owner keeps the same audio until it is
answered, and bounds it: a session by `max_buffered_audio_s` (then `audio_overrun`), a request by
its size. So the queue has the bound of its owners, and a batch has its own.

A stream that joins sends everything that its owner has no answer for, and a thousand may join at
once, when another replica is lost. So joining is paced: each batch has room for some of it, after
the live audio, and the other streams wait for their turn; meanwhile their items are dropped,
because joining sends them again.

A replica is given up when it has sent nothing for a while: a slow one still says that it lives.
"""

import asyncio
import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from deployments.fairness import NOBODY, FairShares, Payer, Ticket
from deployments.interfaces import BYTES_PER_SAMPLE, RATE
from serve_app.lanes.load import LaneSignals, Load, RecentMost

HEARTBEAT_S = 2.0
"""An idle lane sends an empty batch this often, so that each side notices that the other died."""

JOINING_BYTES = 1 << 20
"""Of audio that joining streams add to a batch, at most by one stream more: half a minute, which a
VAD judges in about 10 ms. Live audio waits no longer than that."""

BATCH_BYTES = 8 << 20
"""Of audio in a batch; what is more goes with the next one."""

BYTES_A_SECOND = BYTES_PER_SAMPLE * RATE

SIGNALS_S = 1.0
"""What `LaneSignals` covers."""

SILENT_ROUNDS = 12
"""Looks without news after which a replica is given up. They are counted, not timed: an event loop
that was itself blocked or frozen must not blame its replicas."""


class Answer(Protocol):
    @property
    def session(self) -> int: ...


class Connection(Protocol):
    """One model replica, as a lane sees it. Its methods raise when the replica is gone."""

    load: Load
    """The replica's last report."""
    level: int
    """The highest quality level of those who use the replica, in the same report."""
    announced: int
    """Our own, which goes with each batch."""
    payers: dict[int, Payer]
    """Of new streams; the next batch takes them along."""

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        """Send; returns when the replica has taken it. `sessions`: streams on the lane."""

    async def receive(self) -> Sequence[Answer]:
        """The next answers; empty ones are a sign of life."""

    def close(self) -> None: ...


class StreamOwner(Protocol):
    """A session or a request: it gets what happens on its stream."""

    def attached(self) -> None:
        """The stream now reaches a replica that knows nothing of it."""

    def unserved(self) -> None:
        """No replica has answered for a while; the stream waits for one."""

    def answered(self, answer: Any) -> None: ...

    def busy(self) -> bool:
        """The replica owes an answer: if it dies now, this stream may be the cause."""

    def quarantined(self) -> None:
        """The work of this stream crashed two replicas: it must not be sent again."""


class Streams(Protocol):
    """What a stream asks of its pool."""

    def leave(self, stream: "LaneStream") -> None: ...

    def clear(self, stream: "LaneStream") -> None: ...


class Drained(Exception):
    """Serve is ending the replica, and no stream is left on the lane."""


class Frozen(Exception):
    """Nothing has come from the replica for too long."""


class BatchInterval:
    """The least time between two batches of a lane; one for all lanes of a pool."""

    def __init__(self, seconds: float) -> None:
        self._normal_s = self.seconds = seconds

    def slow_down(self, factor: float) -> None:
        self.seconds = self._normal_s * factor


class LaneStream:
    """One owner's stream, on a lane or waiting for one; while it waits its items are dropped."""

    __slots__ = ("_pool", "attached", "batch", "key", "lane", "owner", "payer", "suspect")

    def __init__(
        self, pool: Streams, owner: StreamOwner, payer: Payer = NOBODY, batch: bool = False
    ) -> None:
        """`batch`: part of a recording, after live speech."""
        self._pool = pool
        self.owner = owner
        self.payer = payer
        self.batch = batch
        self.lane: ReplicaLane | None = None
        self.attached = False
        """Its turn on the lane has come."""
        self.key = 0
        self.suspect = False

    def answered(self, answer: Any) -> None:
        self.owner.answered(answer)
        if self.suspect and not self.owner.busy():
            self._pool.clear(self)

    def put(self, item: Any, urgent: bool = False) -> None:
        """`item` is sent after the stream's key, as a value of the lane's item type."""
        if self.attached and self.lane:
            self.lane.put((self.key, *item), urgent)

    def leave(self) -> None:
        self._pool.leave(self)


class ReplicaLane:
    """All streams to one replica."""

    def __init__(
        self, name: str, connection: Connection, interval: BatchInterval, item_type: Any
    ) -> None:
        self.name = name
        self._connection = connection
        self._interval = interval
        self.streams: dict[int, LaneStream] = {}
        self._queue = _Queue(item_type, self.streams)
        self._keys = itertools.count()
        self._joining = _Joining()
        self._ready = asyncio.Event()
        self._urgent = asyncio.Event()
        self.draining = False
        """Serve is ending the replica: it gets no more streams if there is another one."""
        self._over = False
        self._doubts = 0
        """Other replicas that were just lost, and this one may be dying with them: no stream joins
        until it has taken another batch."""
        self._heard = 0
        self._round_trips = RecentMost(SIGNALS_S)
        self._sent_at: float | None = None

    def end(self) -> None:
        """Leave the replica now."""
        self._over = True
        self._urgent.set()
        self._ready.set()

    def doubt(self) -> None:
        """Let it show that it lives before streams join it."""
        self._doubts += 1
        self._urgent.set()
        self._ready.set()

    def join(self, stream: LaneStream) -> None:
        """Attach the stream, now or when its turn has come."""
        stream.lane, stream.key, stream.attached = self, next(self._keys), False
        self.streams[stream.key] = stream
        self._joining.add(stream)
        self._attach()
        if self._joining:
            self._ready.set()

    def detach(self, stream: LaneStream) -> None:
        del self.streams[stream.key]
        stream.lane = None
        if stream.attached:
            self._queue.left.append(stream.key)
            self._ready.set()
        else:
            self._joining.remove(stream)

    def put(self, item: tuple[Any, ...], urgent: bool) -> None:
        self._queue.put(item)
        self._ready.set()
        if urgent:
            self._urgent.set()

    @property
    def level(self) -> int:
        return self._connection.level

    def announce(self, level: int) -> None:
        if level != self._connection.announced:
            self._connection.announced = level
            self._ready.set()

    def signals(self, now: float) -> LaneSignals:
        under_way = now - self._sent_at if self._sent_at is not None else 0.0
        return LaneSignals(
            max(self._round_trips.read(now), under_way),
            self._connection.load.busy,
            self._connection.load.waiting,
        )

    async def run(self, silence_s: float) -> None:
        """Send and receive until the replica fails; raises the cause."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive())
                tasks.create_task(self._send())
                tasks.create_task(self._watch(silence_s / SILENT_ROUNDS))
        finally:
            self._connection.close()

    async def _receive(self) -> None:
        while True:
            answers = await self._connection.receive()
            self._heard += 1
            for answer in answers:
                stream = self.streams.get(answer.session)
                if stream:
                    stream.answered(answer)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await wait(self._ready, HEARTBEAT_S)
            if self._over:
                raise Drained
            not_before = loop.time() + self._interval.seconds
            await self._exchange(*self._take())
            await wait(self._urgent, not_before - loop.time())

    async def _exchange(self, batch: list[Any], left: list[int]) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = began = loop.time()
        doubts = self._doubts
        await self._connection.exchange(batch, left, len(self.streams))
        self._round_trips.add(loop.time(), loop.time() - began)
        self._sent_at = None
        if doubts:
            self._doubts -= doubts
            self._attach()

    def _take(self) -> tuple[list[Any], list[int]]:
        """The next batch, which ends with what joining streams have to send."""
        self._attach()
        self._ready.clear()
        self._urgent.clear()
        taken = self._queue.take()
        if self._queue or self._joining:
            self._ready.set()
        return taken

    def _attach(self) -> None:
        """Those whose turn it is: while the next batch has room for what they send."""
        while self._joining and not self._doubts and self._queue.joined_bytes < JOINING_BYTES:
            stream = self._joining.next()
            stream.attached = True
            if stream.payer is not NOBODY:
                self._connection.payers[stream.key] = stream.payer
            before = len(self._queue)
            stream.owner.attached()
            self._queue.joined(before)

    async def _watch(self, round_s: float) -> None:
        seen, silent = self._heard, 0
        while silent < SILENT_ROUNDS:
            await asyncio.sleep(round_s)
            silent = silent + 1 if self._heard == seen else 0
            seen = self._heard
        raise Frozen


class _Joining:
    """Streams whose turn has not come: live ones first, and tenants by their shares."""

    def __init__(self) -> None:
        self._shares = FairShares()
        self._count = itertools.count()
        self._tickets: dict[LaneStream, Ticket] = {}
        self._order: list[tuple[bool, float, int, LaneStream]] = []
        """A heap; those that have left it early are passed over."""

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, stream: LaneStream) -> None:
        ticket = self._tickets[stream] = self._shares.ticket(stream.payer, 1.0, stream.batch)
        entry = (stream.batch, ticket.rank, next(self._count), stream)
        heapq.heappush(self._order, entry)

    def next(self) -> LaneStream:
        while (stream := heapq.heappop(self._order)[-1]) not in self._tickets:
            continue
        self.remove(stream)
        return stream

    def remove(self, stream: LaneStream) -> None:
        self._shares.end(self._tickets.pop(stream))
        if not self._tickets:
            self._order.clear()


class _Queue:
    """What waits to be sent on a lane, in the order of `put`; if a batch does not hold all of it,
    in the order of `_by_shares`."""

    def __init__(self, item_type: Any, streams: Mapping[int, LaneStream]) -> None:
        self._item_type = item_type
        self._streams = streams
        fields = item_type._fields
        self._pcm = fields.index("pcm") if "pcm" in fields else None
        self._items: list[Any] = []
        self.left: list[int] = []
        self.joined_bytes = 0
        """Of the next batch, from streams that have joined."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: tuple[Any, ...]) -> None:
        self._items.append(tuple.__new__(self._item_type, item))  # what `_make` does, faster

    def joined(self, before: int) -> None:
        """A stream has joined, and the items from index `before` on are its own."""
        self.joined_bytes += sum(map(self._size, self._items[before:]))

    def take(self) -> tuple[list[Any], list[int]]:
        """A batch without items of streams that have left, and those streams."""
        items, left = self._items, self.left
        self.left = []
        if left:
            gone = set(left)
            items = [item for item in items if item[0] not in gone]
        fits = self._fitting(items)
        if fits < len(items):
            items = self._by_shares(items)
            fits = self._fitting(items)
        self._items = items[fits:]
        self.joined_bytes = JOINING_BYTES if self._items else 0
        return items[:fits], left

    def _fitting(self, items: list[Any]) -> int:
        """How many of them make a batch: at least one."""
        size = 0
        for number, item in enumerate(items):
            size += self._size(item)
            if size > BATCH_BYTES and number:
                return number
        return len(items)

    def _by_shares(self, items: list[Any]) -> list[Any]:
        """Live audio first; each tenant gets its share of the batch. A stream's own order stays."""
        shares = FairShares()
        ranked = []
        for item in items:
            stream = self._streams.get(item[0])
            payer, batch = (stream.payer, stream.batch) if stream else (NOBODY, True)
            ticket = shares.ticket(payer, self._size(item) / BYTES_A_SECOND, batch)
            ranked.append((batch, ticket.rank, item))
        ranked.sort(key=lambda it: it[:2])
        return [item for _, _, item in ranked]

    def _size(self, item: Any) -> int:
        return 0 if self._pcm is None else len(item[self._pcm])


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, but at most `seconds`."""
    if seconds <= 0 or event.is_set():
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
