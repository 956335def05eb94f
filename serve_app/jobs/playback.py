"""The playback copy of a recording: mono at 16 kHz, given as WAV, of which any part can be read.

Positions in a WAV are exact in every browser, while those in MP3 with a variable rate or in WebM
drift. It is stored as the FLAC blocks that the job's stages have read: half the size, and each
block is decoded by itself. First the header (`wav_header`), then the samples.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import numpy as np

from deployments.audio import wav_header
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
            yield wav_header(RATE, self.index.samples * BYTES_PER_SAMPLE)[start:end]
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
    index, stored = await _index(objects, job), await objects.open(job, SOUND)
    if stored is None:
        raise _not_ready()
    return Playback(index, stored)


async def peaks_of(objects: Objects, job: Job) -> dict[str, object]:
    """As the API shows them. Raises `ClientError` as `playback_of`."""
    index = await _index(objects, job)
    found, rate = folded(index.peaks)
    return {
        "object": "peaks",
        "duration_ms": index.samples * 1000 // RATE,
        "peaks_per_second": rate,
        "peaks": found,
    }


async def _index(objects: Objects, job: Job) -> Index:
    if (body := await objects.read(job, INDEX)) is None:
        raise _not_ready()
    return msgspec.msgpack.decode(body, type=Index)


def _not_ready() -> ClientError:
    return ClientError("playback_not_ready", "there is no playback copy of the recording (yet)")


def _mono(block: bytes, channels: int) -> bytes:
    pcm = blocks.decoded(block)
    if channels == 1:
        return pcm
    mixed = np.frombuffer(pcm, np.int16).reshape(-1, channels).mean(axis=1)
    return bytes(mixed.astype(np.int16).tobytes())
