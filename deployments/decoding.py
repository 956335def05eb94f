"""Recordings in any common format to 16 kHz PCM, a window at a time, within bounds.

`decode` runs wherever it is called; servers call it through `decoding`, in a process of its own,
where a file that crashes or bloats a codec harms nobody. That process opens nothing by itself: it
is given a path, or asks for the bytes of a `Source` over a socket. Bounds hold while decoding, not
after: ten megabytes of Opus can be eight hours of audio.
"""

import asyncio
import contextlib
import io
import json
import resource
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.child import give_way
from deployments.interfaces import BYTES_PER_SAMPLE, RATE

MAX_CHANNELS = 8
MIN_FILE_RATE, MAX_FILE_RATE = 4_000, 192_000
WINDOW_BYTES = RATE * BYTES_PER_SAMPLE
"""A second of 16 kHz mono: what `decoding` hands out at a time, of every channel."""

BLOCKS_A_SECOND = 4
MEMORY_BYTES = 2 << 30
BLOCK_BYTES = 256 << 10
FORMATS = frozenset(
    "wav,flac,mp3,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,caf,w64,amr".split(",")
)
"""FFmpeg demuxers that read one file and nothing else: no playlists, no network."""

ONE_FILE = {"protocol_whitelist": "file"}
NO_FILE = {"protocol_whitelist": "none"}
LENGTH = struct.Struct(">I")
RANGE = struct.Struct(">QI")


class Bounds(NamedTuple):
    """What is decoded, and how much of it at most."""

    max_s: float
    """Seconds of audio."""
    cpu_s: float
    """Seconds of processor time."""
    split: bool = False
    """Channels stay apart, interleaved; else they are averaged."""
    noise_db: float | None = None
    """The level of steady noise, in dB of full scale, that FFmpeg's denoiser (`afftdn`) takes
    away; None leaves all as it is. Of mono only."""
    background: bool = False
    """Nobody waits for it: whoever speaks live goes first."""


class Info(NamedTuple):
    """What the file says of itself; `channels` is how many come out."""

    format: str
    codec: str
    rate: int
    file_channels: int
    channels: int
    duration_s: float | None


class Source(Protocol):
    """A file that is read where asked: an object in a store, say."""

    size: int

    async def read(self, start: int, end: int) -> bytes: ...


class Undecodable(Exception):
    """`code` is one of the API's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def decode(file: Path | BinaryIO, bounds: Bounds) -> Iterator[bytes]:
    """Yield 16 kHz pcm_s16le. Raises `Undecodable`."""
    return _decode(file, bounds, lambda _: None)


def _decode(file: Path | BinaryIO, bounds: Bounds, tell: Any) -> Iterator[bytes]:
    import av
    import soxr

    try:
        with _opened(file) as container:
            stream = _audio_stream(container)
            channels = stream.channels if bounds.split else 1
            tell(_info(container, stream, channels))
            resampler = soxr.ResampleStream(
                stream.rate, RATE, channels, dtype="float32", quality="HQ"
            )
            clean = _as_it_is if bounds.noise_db is None else _denoiser(bounds.noise_db)
            for samples in _blocks(container.decode(stream), stream.rate, channels, bounds):
                yield _pcm(clean(resampler.resample_chunk(samples), False))
            none = np.zeros((0, channels) if channels > 1 else 0, np.float32)
            yield _pcm(clean(resampler.resample_chunk(none, last=True), True))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable("unreadable_audio", "this is not audio in a known format") from error


def _opened(file: Path | BinaryIO) -> Any:
    import av

    if isinstance(file, Path):
        return av.open(str(file), metadata_errors="ignore", options=ONE_FILE)
    return av.open(file, metadata_errors="ignore", options=NO_FILE)


def _info(container: Any, stream: Any, channels: int) -> Info:
    duration = container.duration / 1_000_000 if container.duration else None
    codec = stream.codec_context.name
    name = container.format.name.split(",")[0]
    return Info(name, codec, stream.rate, stream.channels, channels, duration)


def duration_s(path: Path) -> float | None:
    """Seconds the file says it lasts, where it says so."""
    import av

    try:
        with _opened(path) as file:
            return file.duration / 1_000_000 if file.duration else None
    except av.FFmpegError:
        return None


def _audio_stream(file: Any) -> Any:
    if not FORMATS.intersection(file.format.name.split(",")):
        raise Undecodable("unreadable_audio", f"format {file.format.name} is not taken")
    if not file.streams.audio:
        raise Undecodable("unreadable_audio", "the file holds no audio")
    stream = file.streams.audio[0]
    if stream.channels > MAX_CHANNELS:
        raise Undecodable(
            "too_many_channels", f"{stream.channels} channels; at most {MAX_CHANNELS} are taken"
        )
    if not MIN_FILE_RATE <= (stream.rate or 0) <= MAX_FILE_RATE:
        raise Undecodable(
            "unreadable_audio", f"a rate of {stream.rate} Hz is not from 4000 to 192000"
        )
    return stream


def _blocks(
    frames: Iterable[Any], rate: int, channels: int, bounds: Bounds
) -> Iterator[NDArray[np.float32]]:
    """A codec's frames, which hold some twenty milliseconds each, as blocks that are worth a
    call. Raises `Undecodable` when there are too many."""
    left = int(bounds.max_s * rate)
    waiting: list[Any] = []
    for frame in frames:
        left -= frame.samples
        if left < 0:
            reason = f"the recording is longer than {bounds.max_s:g} s"
            raise Undecodable("recording_too_long", reason)
        if waiting and _shape(frame) != _shape(waiting[0]):
            yield _channels(waiting, channels)
            waiting = []
        waiting.append(frame)
        if len(waiting) * frame.samples >= rate // BLOCKS_A_SECOND:
            yield _channels(waiting, channels)
            waiting = []
    if waiting:
        yield _channels(waiting, channels)


def _shape(frame: Any) -> tuple[str, int]:
    return frame.format.name, frame.layout.nb_channels


def _channels(frames: list[Any], channels: int) -> NDArray[np.float32]:
    """Samples in [-1, 1], frames x channels, or averaged where one channel is wanted: FFmpeg's
    own downmix adds 3 dB and clips."""
    first = frames[0]
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if not first.format.is_planar:
        samples = samples.reshape(-1, first.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) - 128
    scale = 1.0 if samples.dtype.kind == "f" else float(1 << (8 * first.format.bytes - 1))
    floats = samples.astype(np.float32)
    wanted: NDArray[np.float32] = floats.mean(axis=0) if channels == 1 else floats[:channels].T
    return np.ascontiguousarray(wanted / np.float32(scale))


Filter = Callable[[NDArray[np.float32], bool], NDArray[np.float32]]


def _as_it_is(samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
    return samples


DENOISER_LAG = 400
"""Samples by which afftdn is late at 16 kHz."""


def _denoiser(noise_db: float) -> Filter:
    """16 kHz mono in, cleaned samples out, a little later but in the same places."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono")
    floor = max(-80.0, min(-20.0, noise_db))
    denoise, sink = graph.add("afftdn", f"nr=12:nf={floor:.1f}"), graph.add("abuffersink")
    source.link_to(denoise)
    denoise.link_to(sink)
    graph.configure()
    late, owed = DENOISER_LAG, 0

    def clean(samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        nonlocal late, owed
        owed += len(samples)
        if last:
            samples = np.concatenate([samples, np.zeros(2 * DENOISER_LAG, np.float32)])
        if len(samples):
            frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
            frame.sample_rate = RATE
            graph.push(frame)
        if last:
            graph.push(None)
        out = [np.zeros(0, np.float32)]
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                out.append(graph.pull().to_ndarray()[0])
        cleaned = np.concatenate(out)
        late, cleaned = max(0, late - len(cleaned)), cleaned[late:][:owed]
        owed -= len(cleaned)
        return cleaned

    return clean


def _pcm(samples: NDArray[np.float32]) -> bytes:
    from deployments.audio import float_to_int16

    return float_to_int16(samples).tobytes()


class Decoding:
    """A recording that is being decoded: what it is, and its windows of a second."""

    def __init__(self, info: Info, stdout: asyncio.StreamReader, end: Any) -> None:
        self.info = info
        self._stdout = stdout
        self._end = end

    async def windows(self) -> AsyncIterator[bytes]:
        """Raises `Undecodable`, after all that could be decoded."""
        while window := await _read_window(self._stdout, WINDOW_BYTES * self.info.channels):
            yield window
        await self._end()


@asynccontextmanager
async def decoding(source: Path | Source, bounds: Bounds) -> AsyncIterator[Decoding]:
    """`decode` in a process of its own, killed when the reader leaves. Raises `Undecodable`."""
    ours, theirs = socket.socketpair()
    serving: asyncio.Task[None] | None = None
    process = await _start(source, bounds, theirs)
    assert process.stdout and process.stderr

    async def end() -> None:
        assert process.stderr
        complaint = await process.stderr.read()
        if await process.wait():
            raise _undecodable(complaint, process.returncode or 0)

    try:
        theirs.close()
        if not isinstance(source, Path):
            serving = asyncio.create_task(_serve(source, ours))
        try:
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            info = Info(*json.loads(await process.stdout.readexactly(length)))
        except asyncio.IncompleteReadError:
            await _failed_source(serving)
            await end()
            raise Undecodable("unreadable_audio", "the recording could not be decoded") from None
        yield Decoding(info, process.stdout, end)
        await _failed_source(serving)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
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
        "-m",
        "deployments.decoding",
        json.dumps(bounds),
        *where,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(theirs.fileno(),),
        limit=4 * WINDOW_BYTES,
    )


async def _serve(source: Source, end: socket.socket) -> None:
    """Answer the decoder's requests for bytes until it goes; raises what the source raises."""
    end.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        while True:
            start, length = RANGE.unpack(await reader.readexactly(RANGE.size))
            writer.write(await source.read(start, start + length))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


class _Asked(io.RawIOBase):
    """The decoder's end of a `Source`: a file whose bytes are asked for over a socket."""

    def __init__(self, fd: int, size: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if not length:
            return 0
        self._socket.sendall(RANGE.pack(self._at, length))
        got = 0
        with memoryview(buffer) as view:
            while got < length:
                more = self._socket.recv_into(view[got:length])
                if not more:
                    raise ValueError("the recording's bytes stopped coming")
                got += more
        self._at += length
        return length


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


def _undecodable(complaint: bytes, code: int) -> Undecodable:
    try:
        said = json.loads(complaint)
        return Undecodable(said["code"], said["message"])
    except (ValueError, KeyError):
        if code == -24:  # SIGXCPU
            return Undecodable("decode_timeout", "the recording takes too long to decode")
        return Undecodable("unreadable_audio", "the recording could not be decoded")


def main(bounds_json: str, *where: str) -> int:
    bounds = Bounds(*json.loads(bounds_json))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    cpu_s = max(1, int(bounds.cpu_s))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if bounds.background:
        give_way()
    out = sys.stdout.buffer

    def tell(info: Info) -> None:
        body = json.dumps(info).encode()
        out.write(LENGTH.pack(len(body)) + body)

    file: Any = Path(where[0])
    if len(where) == 2:
        file = io.BufferedReader(_Asked(int(where[0]), int(where[1])), BLOCK_BYTES)
    try:
        for pcm in _decode(file, bounds, tell):
            out.write(pcm)
    except Undecodable as error:
        out.flush()
        json.dump({"code": error.code, "message": str(error)}, sys.stderr)
        return 1
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
