"""Recordings in any common format to 16 kHz mono PCM, a window at a time, within bounds.

`decode` runs wherever it is called; servers call it through `decode_in_process`, where a file that
crashes or bloats a codec harms nobody. Bounds hold while decoding, not after: ten megabytes of
Opus can be eight hours of audio.
"""

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.interfaces import BYTES_PER_SAMPLE, RATE

MAX_CHANNELS = 8
MIN_FILE_RATE, MAX_FILE_RATE = 4_000, 192_000
WINDOW_BYTES = RATE * BYTES_PER_SAMPLE
"""A second of 16 kHz mono: what `decode_in_process` hands out at a time."""

MEMORY_BYTES = 2 << 30
FORMATS = frozenset(
    "wav,flac,mp3,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,caf,w64,amr".split(",")
)
"""FFmpeg demuxers that read one file and nothing else: no playlists, no network."""

ONE_FILE = {"protocol_whitelist": "file"}


class Bounds(NamedTuple):
    max_s: float
    """Seconds of audio."""
    cpu_s: float
    """Seconds of processor time."""


class Undecodable(Exception):
    """`code` is one of the API's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def decode(path: Path, bounds: Bounds) -> Iterator[bytes]:
    """Yield 16 kHz mono pcm_s16le. Channels are averaged. Raises `Undecodable`."""
    import av
    import soxr

    try:
        with av.open(
            str(path), metadata_errors="ignore", options={"protocol_whitelist": "file"}
        ) as file:
            stream = _audio_stream(file)
            resampler = soxr.ResampleStream(stream.rate, RATE, 1, dtype="float32", quality="HQ")
            left = int(bounds.max_s * stream.rate)
            for frame in file.decode(stream):
                left -= frame.samples
                if left < 0:
                    raise Undecodable(
                        "recording_too_long", f"the recording is longer than {bounds.max_s:g} s"
                    )
                yield _pcm(resampler.resample_chunk(_mono(frame)))
            yield _pcm(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable("unreadable_audio", "this is not audio in a known format") from error


def duration_s(path: Path) -> float | None:
    """Seconds the file says it lasts, where it says so."""
    import av

    try:
        with av.open(str(path), options=ONE_FILE) as file:
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


def _mono(frame: Any) -> NDArray[np.float32]:
    """A frame's samples in [-1, 1], channels averaged: FFmpeg's own downmix adds 3 dB and clips."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) - 128
    scale = 1.0 if samples.dtype.kind == "f" else float(1 << (8 * frame.format.bytes - 1))
    mono: NDArray[np.float32] = samples.astype(np.float32).mean(axis=0) / np.float32(scale)
    return mono


def _pcm(samples: NDArray[np.float32]) -> bytes:
    from deployments.audio import float_to_int16

    return float_to_int16(samples).tobytes()


async def decode_in_process(path: Path, bounds: Bounds) -> AsyncIterator[bytes]:
    """`decode` in a process of its own, killed when the reader stops; windows of a second."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deployments.decoding",
        str(path),
        json.dumps(bounds._asdict()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=4 * WINDOW_BYTES,
    )
    assert process.stdout and process.stderr
    try:
        while window := await _read_window(process.stdout):
            yield window
        complaint = await process.stderr.read()
        if await process.wait():
            raise _undecodable(complaint, process.returncode or 0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_window(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readexactly(WINDOW_BYTES)
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


def main(path: str, bounds_json: str, out: BinaryIO) -> int:
    bounds = Bounds(**json.loads(bounds_json))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    cpu_s = max(1, int(bounds.cpu_s))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for pcm in decode(Path(path), bounds):
            out.write(pcm)
    except Undecodable as error:
        json.dump({"code": error.code, "message": str(error)}, sys.stderr)
        return 1
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.stdout.buffer))
