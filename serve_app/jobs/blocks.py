"""Decoded audio as lossless FLAC, in blocks that can be read independently."""

import io
from typing import Any

import numpy as np

from deployments.interfaces import BYTES_PER_SAMPLE, RATE

BLOCK_SAMPLES = 10 * RATE
FLAC_SAMPLES = 4096
"""Samples in one FLAC frame."""

LAYOUTS = ("mono", "stereo")
COMPRESSION = {"compression_level": "1"}


class Blocks:
    """Collects interleaved 16 kHz pcm_s16le into blocks of ten seconds; the last may be shorter."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pcm = bytearray()
        self.sizes: list[int] = []
        """Bytes of each block so far."""

    def push(self, pcm: bytes) -> bytes:
        """The blocks that are now full; may be empty."""
        self._pcm += pcm
        full = BLOCK_SAMPLES * BYTES_PER_SAMPLE * self._channels
        out = b""
        while len(self._pcm) >= full:
            out += self._block(bytes(self._pcm[:full]))
            del self._pcm[:full]
        return out

    def finish(self) -> bytes:
        """The last block, if there is one."""
        return self._block(bytes(self._pcm)) if self._pcm else b""

    def _block(self, pcm: bytes) -> bytes:
        block = encoded(pcm, self._channels)
        self.sizes.append(len(block))
        return block


def encoded(pcm: bytes, channels: int) -> bytes:
    """A FLAC file of interleaved 16 kHz pcm_s16le."""
    import av

    out = io.BytesIO()
    layout = LAYOUTS[channels - 1] if channels <= len(LAYOUTS) else f"{channels}c"
    frames = av.AudioFifo()
    frames.write(_frame(av, pcm, layout))
    with av.open(out, "w", format="flac") as file:
        stream: Any = file.add_stream("flac", rate=RATE, options=COMPRESSION)
        stream.layout, stream.format = layout, "s16"
        while frame := frames.read(FLAC_SAMPLES, partial=True):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def _frame(av: Any, pcm: bytes, layout: str) -> Any:
    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None, :], "s16", layout)
    frame.sample_rate = RATE
    return frame


def decoded(block: bytes) -> bytes:
    """The pcm that `encoded` was given."""
    import av

    with av.open(io.BytesIO(block), "r") as file:
        return b"".join(frame.to_ndarray().tobytes() for frame in file.decode(audio=0))
