"""A lane on the wire: one TCP connection from an ingress replica to a model replica.

A Serve handle call costs a millisecond or more of CPU time on each side, a frame here some tens of
microseconds; and a connection stays with its replica and breaks when the replica dies. Serve still
says which replicas to use: the address and the token of a replica come over a Serve handle.

Frames (`deployments/framing.py`) hold typed msgpack, so that only data gets in. The ingress sends
the token, then `Up` frames. The replica sends `Down` frames; one with `took` set answers each `Up`.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from deployments.framing import FrameTooLong, frame, read_frame
from deployments.interfaces import Lanes

log = logging.getLogger("voxray.lanes")

Item = TypeVar("Item")
MAX_FRAME_BYTES = 256 << 20
"""More than a minute of audio from each of a hundred sessions; larger frames are refused."""

READ_AHEAD_BYTES = 4 << 20
"""Under load a frame has hundreds of KB; with asyncio's 64 KB each would pause reading."""

MAX_HELLO_BYTES = 256
HELLO_TIMEOUT_S = 5.0

BROKEN = (OSError, asyncio.IncompleteReadError, FrameTooLong, msgspec.DecodeError)
"""The other end is gone, or does not speak this protocol."""


class Address(NamedTuple):
    """Where a replica accepts lanes, and the token that it asks for."""

    name: str
    host: str
    port: int
    token: str


class Up(msgspec.Struct, Generic[Item], array_like=True):
    batch: list[Item]
    left: list[int]
    sessions: int
    """Streams on this lane now, the silent ones included."""


class Down(msgspec.Struct, Generic[Item], array_like=True):
    took: bool
    answers: list[Item]


class LaneServer:
    """Accepts lanes for one model replica."""

    def __init__(self, model: Lanes, item: type) -> None:
        self._model = model
        self._decoder = msgspec.msgpack.Decoder(Up[item])  # type: ignore[valid-type]
        self._token = secrets.token_hex(32)
        self._server: asyncio.Server | None = None
        self._sessions: dict[str, int] = {}

    async def start(self, name: str, host: str) -> Address:
        """Listen on a free port of `host`."""
        self._server = await asyncio.start_server(self._serve, host, limit=READ_AHEAD_BYTES)
        port = self._server.sockets[0].getsockname()[1]
        return Address(name, host, port, self._token)

    def stop(self) -> None:
        if self._server:
            self._server.close()

    def sessions(self) -> int:
        """Streams on all lanes; the deployment scales by it."""
        return sum(self._sessions.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                token = await read_frame(reader, MAX_HELLO_BYTES)
            if hmac.compare_digest(token, self._token.encode()):
                await self._carry(reader, writer)
        except BROKEN:
            pass  # the other end is gone, or is not an ingress
        except Exception:  # the model failed: end the lane, and its streams move to another replica
            log.exception("a lane failed")
        finally:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lane = secrets.token_hex(8)
        async with asyncio.TaskGroup() as tasks:
            listening = self._model.listen(lane)
            await anext(listening)
            pushing = tasks.create_task(_push(listening, writer))
            try:
                while True:
                    up = self._decoder.decode(await read_frame(reader, MAX_FRAME_BYTES))
                    self._sessions[lane] = up.sessions
                    answers = await self._model.exchange(lane, up.batch, up.left)
                    _write(writer, Down(True, list(answers)))
                    await writer.drain()
            except BROKEN:
                pushing.cancel()
            finally:
                self._sessions.pop(lane, None)


async def _push(listening: AsyncIterator[Sequence[Any]], writer: asyncio.StreamWriter) -> None:
    async for answers in listening:
        _write(writer, Down(False, list(answers)))
        await writer.drain()


class LaneConnection:
    """The ingress's end; implements `pool.Connection`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: type
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.msgpack.Decoder(Down[answer])  # type: ignore[valid-type]
        self._taken = asyncio.Event()

    @classmethod
    async def open(cls, address: Address, answer: type) -> "LaneConnection":
        reader, writer = await asyncio.open_connection(
            address.host, address.port, limit=READ_AHEAD_BYTES
        )
        writer.write(frame(address.token.encode()))
        return cls(reader, writer, answer)

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        """Send, and return when the replica has taken it."""
        self._taken.clear()
        _write(self._writer, Up(list(batch), list(left), sessions))
        await self._writer.drain()
        await self._taken.wait()

    async def receive(self) -> Sequence[Any]:
        """The next answers. Raises `ConnectionError` when the replica is gone."""
        try:
            down = self._decoder.decode(await read_frame(self._reader, MAX_FRAME_BYTES))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the replica closed the lane") from error
        except FrameTooLong as error:
            raise ConnectionAbortedError(f"not a lane's frame: {error}") from error
        if down.took:
            self._taken.set()
        answers: Sequence[Any] = down.answers
        return answers

    def close(self) -> None:
        self._writer.close()


_encoder = msgspec.msgpack.Encoder()


def _write(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(frame(_encoder.encode(message)))
