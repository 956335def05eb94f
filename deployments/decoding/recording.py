"""A recording to 16 kHz pcm, in the process that calls it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deployments.decoding.container import audio_stream, info_of, opened
from deployments.decoding.limits import Bounds, Info, Undecodable
from deployments.decoding.samples import blocks, pcm_of
from deployments.interfaces import RATE


def decode(file: Path | BinaryIO, bounds: Bounds) -> Iterator[bytes]:
    """Yield 16 kHz pcm_s16le. Raises `Undecodable`."""
    return decode_telling(file, bounds, lambda _: None)


def decode_telling(
    file: Path | BinaryIO, bounds: Bounds, tell: Callable[[Info], None]
) -> Iterator[bytes]:
    """`tell` is called with what the file says of itself, before the first samples."""
    import av
    import soxr

    try:
        with opened(file) as container:
            stream = audio_stream(container)
            channels = stream.channels if bounds.split else 1
            tell(info_of(container, stream, channels))
            resampler = soxr.ResampleStream(
                stream.rate, RATE, channels, dtype="float32", quality="HQ"
            )
            for samples in blocks(container.decode(stream), stream.rate, channels, bounds):
                yield pcm_of(resampler.resample_chunk(samples))
            none = np.zeros((0, channels) if channels > 1 else 0, np.float32)
            yield pcm_of(resampler.resample_chunk(none, last=True))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable("unreadable_audio", "this is not audio in a known format") from error
