"""PCM in, PCM out: sample formats, mixing and resampling to 16 kHz mono.

Pure functions of arrays, and one streaming resampler. Samples are int16 unless said otherwise.
G.711 follows ITU-T G.711 (1988): A-law and mu-law are expanded by table to 14- and 13-bit values
left-aligned in 16 bits.
"""

from typing import Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.interfaces import RATE

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]
Int16 = NDArray[np.int16]

SAMPLE_BYTES: dict[str, int] = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


def _mulaw_table() -> Int16:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Int16:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code & 0x70) >> 4
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent > 0, mantissa + 0x100 << np.maximum(exponent - 1, 0), mantissa)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


MULAW = _mulaw_table()
ALAW = _alaw_table()


def to_int16(pcm: bytes, encoding: Encoding) -> Int16:
    """Decode interleaved samples. Floats outside [-1, 1] are clipped, NaN becomes 0."""
    if encoding == "pcm_s16le":
        return np.frombuffer(pcm, "<i2")
    if encoding == "pcm_f32le":
        return float_to_int16(np.frombuffer(pcm, "<f4"))
    table: Int16 = MULAW if encoding == "mulaw" else ALAW
    return table.take(np.frombuffer(pcm, np.uint8))


def float_to_int16(samples: NDArray[np.float32]) -> Int16:
    """[-1, 1] to int16, rounded; +1.0 becomes 32767."""
    scaled = np.rint(np.nan_to_num(samples, posinf=1.0, neginf=-1.0) * 32768.0)
    clipped: Int16 = np.clip(scaled, -32768, 32767).astype(np.int16)
    return clipped


def mix(samples: Int16, channels: int) -> Int16:
    """Average interleaved channels into one; a half frame at the end is the caller's error."""
    if channels == 1:
        return samples
    mean = samples.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    mixed: Int16 = np.rint(mean).astype(np.int16)
    return mixed


class Intake:
    """Turns a client's stream of chunks into 16 kHz mono `pcm`, without clicks between chunks.

    Telephony rates use soxr's LQ filter: HQ would hold back 120 ms at 8 kHz, LQ 40.
    """

    def __init__(self, rate: int, encoding: Encoding, channels: int) -> None:
        self._encoding = encoding
        self._channels = channels
        self.frame_bytes = SAMPLE_BYTES[encoding] * channels
        self._as_is = rate == RATE and encoding == "pcm_s16le" and channels == 1
        quality = "LQ" if rate < RATE else "HQ"
        self._resampler: Any = (
            None
            if rate == RATE
            else soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality=quality)
        )

    def push(self, pcm: bytes) -> bytes:
        """Whole frames in (the dialect has checked), 16 kHz mono out, perhaps a little later."""
        if self._as_is:
            return pcm
        samples = mix(to_int16(pcm, self._encoding), self._channels)
        return self._resample(samples) if self._resampler else samples.tobytes()

    def flush(self) -> bytes:
        """What the resampler still held back, at the end of the stream."""
        return self._resample(np.zeros(0, np.int16), last=True) if self._resampler else b""

    def _resample(self, samples: Int16, last: bool = False) -> bytes:
        """In floats: soxr dithers integers at random, and the same audio must stay the same."""
        floats = samples.astype(np.float32) / np.float32(32768)
        return float_to_int16(self._resampler.resample_chunk(floats, last=last)).tobytes()
