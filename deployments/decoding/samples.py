"""A codec's frames to float samples, and those to 16 kHz pcm."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.audio import float_to_int16
from deployments.decoding.limits import Bounds, Undecodable

BLOCKS_A_SECOND = 4


def blocks(
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


def pcm_of(samples: NDArray[np.float32]) -> bytes:
    return float_to_int16(samples).tobytes()
