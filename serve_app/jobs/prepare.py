"""Decodes a recording and detects speech in it, once for all stages.

`Preparation` yields each second as it is decoded; from the FLAC and the spans of speech that it
returns, `stretches` yields the recording again without another decoding.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from deployments.decoding import WINDOW_BYTES, Bounds, Info, Source, Undecodable, decoding
from deployments.interfaces import BYTES_PER_SAMPLE
from deployments.vad import FRAME_SAMPLES, voiced
from serve_app.jobs import blocks
from serve_app.jobs.blocks import BLOCK_SAMPLES, Blocks
from serve_app.jobs.peaks import Peaks
from serve_app.jobs.playback import Index
from serve_app.jobs.quality import Quality, QualityMeter

VAD_AGGRESSIVENESS = 2

_THREAD = ThreadPoolExecutor(1, "prepare")
"""One for the process, 800 times faster than real time: each thread that uses FFmpeg's buffers
retains memory for them (100 MB, measured)."""

Result = TypeVar("Result")
Stretch = list[tuple[bytes, list[bool]]]
"""A stretch of a recording: each channel's pcm, and whether each of its 20 ms frames is voiced."""


class Prepared(NamedTuple):
    """What is known of a recording after decoding."""

    quality: Quality
    format: str
    codec: str
    spans: list[list[tuple[int, int]]]
    """The spans of speech of each channel, in frames of 20 ms."""
    blocks: list[int]
    """Bytes of each FLAC block."""

    @property
    def samples(self) -> int:
        """Of one channel."""
        return self.quality.samples


class Second(NamedTuple):
    """One second of a recording as it is decoded."""

    stretch: Stretch
    blocks: bytes
    """FLAC blocks to store; may be empty."""
    samples: int
    """Of one channel, so far."""


class Spans:
    """The voiced spans of one channel."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self._frames = 0

    def push(self, flags: list[bool]) -> None:
        for flag in flags:
            if flag:
                self._voice()
            self._frames += 1

    def _voice(self) -> None:
        if self.found and self.found[-1][1] == self._frames:
            self.found[-1] = (self.found[-1][0], self._frames + 1)
        else:
            self.found.append((self._frames, self._frames + 1))


class Preparation:
    """Decodes one recording once, in a separate process."""

    def __init__(self, source: Path | Source, bounds: Bounds) -> None:
        self._source = source
        self._bounds = bounds
        self.duration_s: float | None = None
        """As the file's header states it, once it is open."""

    async def seconds(self) -> AsyncGenerator[Second]:
        """Raises `Undecodable`."""
        async with decoding(self._source, self._bounds) as recording:
            self._begin(recording.info)
            async with aclosing(recording.windows()) as windows:
                async for pcm in windows:
                    yield await _in_thread(self._second, pcm)
        if not self._samples:
            raise Undecodable("unreadable_audio", "the recording contains no audio")
        if last := self._blocks.finish():
            yield Second([(b"", [])] * self._info.channels, last, self._samples)

    def prepared(self) -> Prepared:
        """After the last second."""
        quality = self._meter.quality(self._info.channels)
        spans = [it.found for it in self._spans]
        info = self._info
        return Prepared(quality, info.format, info.codec, spans, self._blocks.sizes)

    def playback(self) -> Index:
        """After the last second: of the blocks, as the playback copy."""
        channels, sizes = self._info.channels, self._blocks.sizes
        return Index(channels, self._samples, sizes, self._peaks.finish())

    def _begin(self, info: Info) -> None:
        import webrtcvad

        self._info = info
        self.duration_s = info.duration_s
        self._vads = [webrtcvad.Vad(VAD_AGGRESSIVENESS) for _ in range(info.channels)]
        self._spans = [Spans() for _ in range(info.channels)]
        self._blocks = Blocks(info.channels)
        self._meter = QualityMeter()
        self._peaks = Peaks(info.channels)
        self._samples = 0

    def _second(self, pcm: bytes) -> Second:
        pcm = pcm[
            : len(pcm) - len(pcm) % (BYTES_PER_SAMPLE * len(self._vads))
        ]  # a killed decoder may cut one off
        channels = _split(pcm, len(self._vads))
        stretch = [
            (one, voiced(vad.is_speech, one)) for one, vad in zip(channels, self._vads, strict=True)
        ]
        for spans, (_, flags) in zip(self._spans, stretch, strict=True):
            spans.push(flags)
        self._meter.push(pcm, stretch)
        self._peaks.push(pcm)
        self._samples += len(channels[0]) // BYTES_PER_SAMPLE
        return Second(stretch, self._blocks.push(pcm), self._samples)


async def _in_thread(do: Callable[[bytes], Result], data: bytes) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_THREAD, do, data)


async def stretches(prepared: Prepared, stored: Source) -> AsyncGenerator[Stretch]:
    """The recording again, ten seconds at a time."""
    flags = [_flags(spans, prepared.samples // FRAME_SAMPLES) for spans in prepared.spans]
    at = frame = 0
    for size in prepared.blocks:
        block = await stored.read(at, at + size)
        pcm = await _in_thread(blocks.decoded, block)
        channels = _split(pcm, len(flags))
        until = frame + BLOCK_SAMPLES // FRAME_SAMPLES
        yield [(one, its[frame:until]) for one, its in zip(channels, flags, strict=True)]
        at, frame = at + size, until


async def audio(prepared: Prepared, stored: Source) -> AsyncGenerator[bytes]:
    """The recording again, of one channel, a second at a time."""
    async with aclosing(stretches(prepared, stored)) as found:
        async for ((pcm, _),) in found:
            for at in range(0, len(pcm), WINDOW_BYTES):
                yield pcm[at : at + WINDOW_BYTES]


def _split(pcm: bytes, channels: int) -> list[bytes]:
    samples = np.frombuffer(pcm, np.int16).reshape(-1, channels)
    return [samples[:, number].tobytes() for number in range(channels)]


def _flags(spans: list[tuple[int, int]], frames: int) -> list[bool]:
    flags = [False] * frames
    for start, end in spans:
        flags[start:end] = [True] * (end - start)
    return flags
