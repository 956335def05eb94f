"""Recordings decoded in a process that is started for each, killed when its reader leaves.

What that process says is parsed as typed data of bounded size: it may have been taken over by the
file that it decodes.
"""

import asyncio
import contextlib
import json
import signal
import socket
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from deployments.decoding.limits import (
    BLOCK_BYTES,
    WINDOW_BYTES,
    Bounds,
    Code,
    Info,
    Source,
    Text,
    Undecodable,
)
from deployments.framing import FrameTooLong, read_frame

RANGE = struct.Struct(">QI")
"""A request for bytes of a `Source`: where they start, and how many."""

LONGEST_INFO = 4 << 10
LONGEST_COMPLAINT = 4 << 10
SLOWEST = 10.0
"""Seconds that a second of audio may take to decode, on average: a process that has the processor
only when nobody else wants it is slow, one that sleeps is not worth the wait."""

START = (
    "import os, sys; os.nice(19); "
    "from deployments.decoding.child import main; sys.exit(main(*sys.argv[1:]))"
)
"""A recording gives way to live speech from its first import on; one in the background gives way
to everybody, see `child`."""

UNREADABLE = "the recording could not be decoded"


class _Patience:
    """Seconds that a reader still waits for its decoder: waiting spends them, audio earns some."""

    def __init__(self, seconds: float) -> None:
        self._most = self._left = seconds

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Raises `Undecodable` when they are spent."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError:
            raise _too_slow() from None
        finally:
            self._left -= clock() - began

    def earn(self) -> None:
        self._left = min(self._most, self._left + SLOWEST)


class Decoding:
    """A recording that is being decoded: what it is, and its windows of a second."""

    def __init__(
        self, info: Info, stdout: asyncio.StreamReader, patience: _Patience, end: Any
    ) -> None:
        self.info = info
        self._stdout = stdout
        self._patience = patience
        self._end = end

    async def windows(self) -> AsyncGenerator[bytes]:
        """Raises `Undecodable`, after all that could be decoded."""
        while window := await self._window():
            yield window
        await self._end()

    async def _window(self) -> bytes:
        async with self._patience.waiting():
            window = await _read_window(self._stdout, WINDOW_BYTES * self.info.channels)
        self._patience.earn()
        return window


@asynccontextmanager
async def decoding(source: Path | Source, bounds: Bounds) -> AsyncIterator[Decoding]:
    """`decode` in a separate process, killed when the reader leaves. Raises `Undecodable`."""
    ours, theirs = socket.socketpair()
    serving: asyncio.Task[None] | None = None
    process = await _start(source, bounds, theirs)
    assert process.stdout and process.stderr

    complaint = asyncio.create_task(_complaint(process))
    patience = _Patience(bounds.wait_s)

    async def end() -> None:
        async with patience.waiting():
            said = await complaint
            code = await process.wait()
        if code:
            raise _undecodable(said, code)

    try:
        theirs.close()
        if not isinstance(source, Path):
            serving = asyncio.create_task(_serve(source, ours))
        try:
            async with patience.waiting():
                said = await read_frame(process.stdout, LONGEST_INFO)
            info = msgspec.json.decode(said, type=Info)
        except (FrameTooLong, msgspec.MsgspecError) as error:
            raise Undecodable("unreadable_audio", UNREADABLE) from error
        except asyncio.IncompleteReadError:
            await _failed_source(serving)
            await end()
            raise Undecodable("unreadable_audio", UNREADABLE) from None
        yield Decoding(info, process.stdout, patience, end)
        await _failed_source(serving)
    finally:
        _kill(process)
        complaint.cancel()
        await asyncio.gather(complaint, return_exceptions=True)
        await process.communicate()  # `wait` alone never returns while unread windows fill a pipe
        if serving:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        ours.close()


async def _failed_source(serving: "asyncio.Task[None] | None") -> None:
    """A source that fails is not the recording's fault: its own error goes up."""
    if serving and serving.done():
        serving.result()


async def _start(
    source: Path | Source, bounds: Bounds, theirs: socket.socket
) -> asyncio.subprocess.Process:
    where = [str(source)] if isinstance(source, Path) else [str(theirs.fileno()), str(source.size)]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        START,
        json.dumps(bounds),
        *where,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(theirs.fileno(),),
        limit=4 * WINDOW_BYTES,
    )


async def _serve(source: Source, end: socket.socket) -> None:
    """Answer the decoder's requests for bytes until it goes, or asks for what there is not; raises
    what the source raises."""
    end.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        while True:
            start, length = RANGE.unpack(await reader.readexactly(RANGE.size))
            if length > BLOCK_BYTES or start + length > source.size:
                return
            writer.write(await source.read(start, start + length))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def decode_in_process(path: Path, bounds: Bounds) -> AsyncIterator[bytes]:
    """The windows of a recording, mono."""
    async with decoding(path, bounds) as decoded:
        async for window in decoded.windows():
            yield window


async def _read_window(stream: asyncio.StreamReader, length: int) -> bytes:
    try:
        return await stream.readexactly(length)
    except asyncio.IncompleteReadError as end:
        return end.partial


async def _complaint(process: asyncio.subprocess.Process) -> bytes:
    """What it writes to stderr, while it runs; one that goes on and on is killed."""
    assert process.stderr
    said = b""
    while more := await process.stderr.read(LONGEST_COMPLAINT):
        said += more
        if len(said) > LONGEST_COMPLAINT:
            _kill(process)
            return b""
    return said


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _undecodable(complaint: bytes, code: int) -> Undecodable:
    try:
        return Undecodable(*msgspec.json.decode(complaint, type=tuple[Code, Text]))
    except msgspec.MsgspecError:
        if code == -signal.SIGXCPU:
            return _too_slow()
        return Undecodable("unreadable_audio", UNREADABLE)


def _too_slow() -> Undecodable:
    return Undecodable("decode_timeout", "the recording takes too long to decode")
