"""The playback copy of a recording: mono at 16 kHz, given as WAV, of which any part can be read.

Positions in a WAV are exact in every browser, while those in MP3 with a variable rate or in WebM
drift. It is stored as the FLAC blocks that the job's stages have read: half the size, and each
block is decoded by itself. 44 bytes of RIFF header (http://soundfile.sapp.org/doc/WaveFormat), then
the samples.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import numpy as np

from deployments.decoding import Source
from deployments.interfaces import BYTES_PER_SAMPLE, RATE
from serve_app.errors import ClientError
from serve_app.jobs import blocks
from serve_app.jobs.blocks import BLOCK_SAMPLES
from serve_app.jobs.job import Job
from serve_app.jobs.objects import Objects
from serve_app.jobs.peaks import folded

SOUND, INDEX = "playback/blocks", "playback/index"
HEADER_BYTES = 44
BLOCK_BYTES = BLOCK_SAMPLES * BYTES_PER_SAMPLE

_THREAD = ThreadPoolExecutor(1, "playback")
"""One: each thread that uses FFmpeg's buffers retains memory for them."""


class Index(NamedTuple):
    """What is known of the copy without reading it."""

    channels: int
    samples: int
    """Of one channel."""
    blocks: list[int]
    """Bytes of each FLAC block."""
    peaks: bytes
    """See `peaks`."""

    @property
    def size(self) -> int:
        """Bytes of the WAV."""
        return HEADER_BYTES + self.samples * BYTES_PER_SAMPLE


class Playback:
    """One recording's copy. All methods raise `ClientError`."""

    def __init__(self, index: Index, stored: Source) -> None:
        self.index = index
        self._stored = stored

    @property
    def size(self) -> int:
        return self.index.size

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `end` of the WAV, a block of ten seconds at a time."""
        if start < HEADER_BYTES:
            yield header(self.index.samples)[start:end]
        first = max(0, start - HEADER_BYTES)
        until = max(0, end - HEADER_BYTES)
        for number in range(first // BLOCK_BYTES, -(-until // BLOCK_BYTES)):
            at = number * BLOCK_BYTES
            pcm = await self._block(number)
            yield pcm[max(0, first - at) : until - at]

    async def _block(self, number: int) -> bytes:
        sizes = self.index.blocks
        at = sum(sizes[:number])
        stored = await self._stored.read(at, at + sizes[number])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_THREAD, _mono, stored, self.index.channels)


async def playback_of(objects: Objects, job: Job) -> Playback:
    """Raises `ClientError` `playback_not_ready` while, or where, there is no copy."""
    body, stored = await objects.read(job, INDEX), await objects.open(job, SOUND)
    if body is None or stored is None:
        raise ClientError("playback_not_ready", "there is no playback copy of the recording (yet)")
    return Playback(msgspec.msgpack.decode(body, type=Index), stored)


async def peaks_of(objects: Objects, job: Job) -> dict[str, object]:
    """As the API shows them. Raises `ClientError` as `playback_of`."""
    index = (await playback_of(objects, job)).index
    found, rate = folded(index.peaks)
    return {
        "object": "peaks",
        "duration_ms": index.samples * 1000 // RATE,
        "peaks_per_second": rate,
        "peaks": found,
    }


def header(samples: int) -> bytes:
    """Of a WAV file of mono pcm_s16le at 16 kHz."""
    size = samples * BYTES_PER_SAMPLE
    riff = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * BYTES_PER_SAMPLE, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", size)


def _mono(block: bytes, channels: int) -> bytes:
    pcm = blocks.decoded(block)
    if channels == 1:
        return pcm
    mixed = np.frombuffer(pcm, np.int16).reshape(-1, channels).mean(axis=1)
    return bytes(mixed.astype(np.int16).tobytes())
