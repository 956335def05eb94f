"""The loudest sample of each tenth of a second, for drawing a recording. Pure."""

import numpy as np

from deployments.interfaces import RATE

PER_SECOND = 10
SAMPLES = RATE // PER_SECOND
MOST = 20_000
"""More are folded: nobody sees them."""


class Peaks:
    """Takes interleaved 16 kHz pcm_s16le, in pieces of any length."""

    def __init__(self, channels: int) -> None:
        self._piece_samples = SAMPLES * channels
        self._rest = np.zeros(0, np.int16)
        self._found = bytearray()

    def push(self, pcm: bytes) -> None:
        samples = np.concatenate([self._rest, np.frombuffer(pcm, np.int16)])
        whole = len(samples) // self._piece_samples * self._piece_samples
        self._take(samples[:whole].reshape(-1, self._piece_samples))
        self._rest = samples[whole:]

    def finish(self) -> bytes:
        """All of them, 0 to 127 each."""
        if len(self._rest):
            self._take(self._rest.reshape(1, -1))
            self._rest = self._rest[:0]
        return bytes(self._found)

    def _take(self, pieces: "np.ndarray[tuple[int, int], np.dtype[np.int16]]") -> None:
        if len(pieces):
            loudest = np.abs(pieces.astype(np.int32)).max(axis=1)
            self._found += np.minimum(loudest >> 8, 127).astype(np.uint8).tobytes()


def folded(peaks: bytes, most: int = MOST) -> tuple[list[int], float]:
    """At most `most` peaks, and how many of them there are per second."""
    step = max(1, -(-len(peaks) // most))
    return [max(peaks[at : at + step]) for at in range(0, len(peaks), step)], PER_SECOND / step
