"""A lane on the wire: one TCP connection from an ingress replica to a model replica.

A Serve handle call costs a millisecond or more of CPU time on each side, a frame here some tens of
microseconds; and a connection stays with its replica and breaks when the replica dies. Serve still
says which replicas to use: the address and the token of a replica come over a Serve handle.

Frames (`deployments/framing.py`) hold typed msgpack, so that only data gets in. The ingress says
`Hello` with the token, and the replica answers with `Welcome`. Then the ingress sends `Up` frames
and the replica `Down` frames: one with `took` set answers each `Up`, and one with its `load` comes
twice a second, even while a batch is in work. An end that hears nothing for a while closes the
lane.

During a rolling update an ingress and a replica of two versions of voxray meet. Both say which
versions of this protocol they speak, and the lane uses the newest that both do; without one there
is no lane. A struct here may get another last field with a default, because an older reader ignores
it; any other change, the items and answers included, is a new version.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from deployments.fairness import Payer
from deployments.framing import FrameTooLong, frame, read_frame
from deployments.interfaces import Lanes
from serve_app.lanes import tls
from serve_app.lanes.load import BusyTime, Load

log = logging.getLogger("voxray.lanes")

Item = TypeVar("Item")
MAX_FRAME_BYTES = 256 << 20
"""More than a minute of audio from each of a hundred sessions; larger frames are refused."""

READ_AHEAD_BYTES = 4 << 20
"""Under load a frame has hundreds of KB; with asyncio's 64 KB each would pause reading."""

MAX_HELLO_BYTES = 256
HELLO_TIMEOUT_S = 5.0

REPORT_S = 0.5
"""How often a replica reports its load."""

UNREAD_BYTES = 1 << 16
"""An ingress that leaves more than this unread gets no reports until it reads again."""

STALL_S = 10.0
"""A model that takes no batch for this long, and sends no answers, is stuck. It may be slow: taking
a batch is not working it off."""

STALL_LOOK_S = 0.5

ABSENT_S = 30.0
"""An ingress that sends nothing for this long is gone, and the work of its streams is dropped."""


class Versions(NamedTuple):
    """The oldest and the newest version of the protocol that one end speaks."""

    oldest: int
    newest: int

    def with_(self, other: "Versions") -> int | None:
        """The newest that both speak."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None


SPOKEN = Versions(1, 1)
"""A test pins what version 1 looks like."""


class VersionsDiffer(Exception):
    """The two ends have no version of the protocol in common."""


BROKEN = (OSError, asyncio.IncompleteReadError, FrameTooLong, msgspec.DecodeError)
"""The other end is gone, or does not speak this protocol."""


class Address(NamedTuple):
    """Where a replica accepts lanes, and the token that it asks for."""

    name: str
    host: str
    port: int
    token: str

    @classmethod
    def of(cls, described: dict[str, Any]) -> "Address":
        """From `_asdict` of the same or another version of voxray."""
        return cls(*(described[field] for field in cls._fields))


class Hello(msgspec.Struct, array_like=True):
    versions: Versions
    token: str


class Welcome(msgspec.Struct, array_like=True):
    versions: Versions


class Up(msgspec.Struct, Generic[Item], array_like=True):
    batch: list[Item]
    left: list[int]
    sessions: int
    """Streams on this lane now, the silent ones included."""
    level: int = 0
    """The sender's quality level; see `admission.ladder`."""
    payers: dict[int, Payer] = {}
    """Of the streams that are new on this lane."""


class Down(msgspec.Struct, Generic[Item], array_like=True):
    took: bool
    answers: list[Item]
    load: Load | None = None
    level: int = 0
    """The highest quality level of all lanes, with the load."""


class LaneServer:
    """Accepts lanes for one model replica."""

    def __init__(self, model: Lanes, item: type, spoken: Versions = SPOKEN) -> None:
        self._model = model
        self._decoder = msgspec.msgpack.Decoder(Up[item])  # type: ignore[valid-type]
        self._spoken = spoken
        self._token = secrets.token_hex(32)
        self._server: asyncio.Server | None = None
        self._sessions: dict[str, int] = {}
        self._levels: dict[str, int] = {}
        self._busy = BusyTime(time.monotonic(), time.thread_time())
        self._load = Load()
        self._reported_at = 0.0
        self._exchanges = 0
        self._moved_at = 0.0
        """When an exchange last began alone or ended, or answers went out."""

    async def start(self, name: str, host: str) -> Address:
        """Listen on a free port of `host`."""
        self._server = await asyncio.start_server(
            self._serve, host, limit=READ_AHEAD_BYTES, ssl=tls.server()
        )
        port = self._server.sockets[0].getsockname()[1]
        return Address(name, host, port, self._token)

    def stop(self) -> None:
        if self._server:
            self._server.close()

    def sessions(self) -> int:
        """Streams on all lanes; the deployment scales by it."""
        return sum(self._sessions.values())

    def load(self) -> Load:
        """Since the last time that it was measured: for all lanes together twice a second."""
        now = time.monotonic()
        if now - self._reported_at > REPORT_S / 2:
            busy = self._busy.share(now, time.thread_time())
            self._load = Load(round(busy, 3), self._model.waiting())
            self._reported_at = now
        return self._load

    async def wait_stalled(self) -> str:
        """Returns the reason when the model no longer takes batches, or no longer answers, though
        its event loop runs."""
        while not self._model.stalled():
            await asyncio.sleep(STALL_LOOK_S)
            if self._exchanges and time.monotonic() - self._moved_at > STALL_S:
                return f"it has not taken a batch for {STALL_S:g} s"
        return "it owes answers and sends none"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = _hello_decoder.decode(await read_frame(reader, MAX_HELLO_BYTES))
            if hmac.compare_digest(hello.token.encode(), self._token.encode()):
                await self._greet(hello, reader, writer)
        except BROKEN:
            pass  # the other end is gone, or is not an ingress
        except Exception:  # the model failed: end the lane, and its streams move to another replica
            log.exception("lane_failed")
        finally:
            writer.close()

    async def _greet(
        self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """With no version in common the ingress, too, finds that out, and closes the lane."""
        _write(writer, Welcome(self._spoken))
        await writer.drain()
        if self._spoken.with_(hello.versions) is not None:
            await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lane = secrets.token_hex(8)
        async with asyncio.TaskGroup() as tasks:
            listening = self._model.listen(lane)
            await anext(listening)
            beside = [
                tasks.create_task(self._push(listening, writer)),
                tasks.create_task(self._report(writer)),
            ]
            try:
                while True:
                    async with asyncio.timeout(ABSENT_S):
                        up = self._decoder.decode(await read_frame(reader, MAX_FRAME_BYTES))
                    self._sessions[lane], self._levels[lane] = up.sessions, up.level
                    _write(writer, Down(True, await self._exchange(lane, up)))
                    await writer.drain()
            except BROKEN:
                for task in beside:
                    task.cancel()
            finally:
                self._sessions.pop(lane, None)
                self._levels.pop(lane, None)

    async def _exchange(self, lane: str, up: Up[Any]) -> list[Any]:
        now = time.monotonic()
        self._busy.begin(now)
        if not self._exchanges:
            self._moved_at = now
        self._exchanges += 1
        if up.payers:
            self._model.pay(lane, up.payers)
        try:
            return list(await self._model.exchange(lane, up.batch, up.left))
        finally:
            self._moved_at = now = time.monotonic()
            self._busy.end(now)
            self._exchanges -= 1

    async def _push(
        self, listening: AsyncIterator[Sequence[Any]], writer: asyncio.StreamWriter
    ) -> None:
        async for answers in listening:
            self._moved_at = time.monotonic()
            _write(writer, Down(False, list(answers)))
            await writer.drain()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            if writer.transport.get_write_buffer_size() < UNREAD_BYTES:
                level = max(self._levels.values(), default=0)
                _write(writer, Down(False, [], self.load(), level))


class LaneConnection:
    """The ingress's end; implements `lane.Connection`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: type
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.msgpack.Decoder(Down[answer])  # type: ignore[valid-type]
        self._taken = asyncio.Event()
        self.load = Load()
        self.level = self.announced = 0
        self.payers: dict[int, Payer] = {}

    @classmethod
    async def open(
        cls, address: Address, answer: type, spoken: Versions = SPOKEN
    ) -> "LaneConnection":
        """Returns when the replica has answered. Raises `VersionsDiffer`, or when it is gone."""
        reader, writer = await asyncio.open_connection(
            address.host, address.port, limit=READ_AHEAD_BYTES, ssl=tls.client()
        )
        try:
            _write(writer, Hello(spoken, address.token))
            welcome = _welcome_decoder.decode(await _next_frame(reader, MAX_HELLO_BYTES))
            if spoken.with_(welcome.versions) is None:
                raise VersionsDiffer(f"it speaks {welcome.versions}, this ingress {spoken}")
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer, answer)

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        """Send, and return when the replica has taken it."""
        self._taken.clear()
        payers, self.payers = self.payers, {}
        _write(self._writer, Up(list(batch), list(left), sessions, self.announced, payers))
        await self._writer.drain()
        await self._taken.wait()

    async def receive(self) -> Sequence[Any]:
        """The next answers. Raises `ConnectionError` when the replica is gone."""
        down = self._decoder.decode(await _next_frame(self._reader, MAX_FRAME_BYTES))
        if down.took:
            self._taken.set()
        if down.load:
            self.load, self.level = down.load, down.level
        answers: Sequence[Any] = down.answers
        return answers

    def close(self) -> None:
        """At once: what is unsent is for streams that have left."""
        self._writer.transport.abort()


async def _next_frame(reader: asyncio.StreamReader, longest: int) -> bytes:
    """From a replica. Raises `ConnectionError`."""
    try:
        return await read_frame(reader, longest)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the replica closed the lane") from error
    except FrameTooLong as error:
        raise ConnectionAbortedError(f"not a lane's frame: {error}") from error


_hello_decoder = msgspec.msgpack.Decoder(Hello)
_welcome_decoder = msgspec.msgpack.Decoder(Welcome)
_encoder = msgspec.msgpack.Encoder()


def _write(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(frame(_encoder.encode(message)))
