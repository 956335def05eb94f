"""Converts PCM: sample formats, mixing and resampling, to 16 kHz mono and from 24 kHz.

Pure functions of arrays, and two streaming resamplers. Samples are int16 unless stated otherwise.
G.711 follows ITU-T G.711 (1988): A-law and mu-law are expanded by table to 14- and 13-bit values
left-aligned in 16 bits.
"""

from typing import Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.interfaces import BYTES_PER_SAMPLE, RATE, VOICE_RATE
from deployments.interfaces.audio import SAMPLE_BYTES

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]
Int16 = NDArray[np.int16]


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


def _codes(table: Int16) -> NDArray[np.uint8]:
    """For each int16, from -32768 on, the code whose value in the table is nearest."""
    order = np.argsort(table, kind="stable").astype(np.uint8)
    values = table[order].astype(np.int32)
    borders = (values[1:] + values[:-1] + 1) // 2
    codes: NDArray[np.uint8] = order[np.searchsorted(borders, np.arange(-32768, 32768), "right")]
    return codes


MULAW_CODES = _codes(MULAW)
ALAW_CODES = _codes(ALAW)


def from_int16(samples: Int16, encoding: Encoding) -> bytes:
    """Encode as pcm_s16le, mulaw or alaw."""
    if encoding == "pcm_s16le":
        return samples.astype("<i2").tobytes()
    codes = MULAW_CODES if encoding == "mulaw" else ALAW_CODES
    return codes.take(samples.astype(np.int32) + 32768).tobytes()


def float_to_int16(samples: NDArray[np.float32]) -> Int16:
    """[-1, 1] to int16, rounded; +1.0 becomes 32767."""
    scaled = np.rint(np.nan_to_num(samples, posinf=1.0, neginf=-1.0) * 32768.0)
    clipped: Int16 = np.clip(scaled, -32768, 32767).astype(np.int16)
    return clipped


def pcm_to_float(pcm: bytes | bytearray) -> NDArray[np.float32]:
    """pcm_s16le as float32 in -1..1."""
    samples: NDArray[np.float32] = np.frombuffer(bytes(pcm), "<i2").astype(np.float32)
    return samples / np.float32(32768)


def mix(samples: Int16, channels: int) -> Int16:
    """Average interleaved channels into one; the caller passes whole frames."""
    if channels == 1:
        return samples
    mean = samples.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    mixed: Int16 = np.rint(mean).astype(np.int16)
    return mixed


class InputConverter:
    """Converts a client's stream to 16 kHz mono `pcm`, without clicks between chunks.

    Telephony rates use soxr's LQ filter: HQ delays audio by 120 ms at 8 kHz, LQ by 40 ms.
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
        """Whole frames in, as the dialect checks; 16 kHz mono out, with the resampler's delay."""
        if self._as_is:
            return pcm
        samples = mix(to_int16(pcm, self._encoding), self._channels)
        return self._resample(samples) if self._resampler else samples.tobytes()

    def flush(self) -> bytes:
        """The rest that the resampler holds, at the end of the stream."""
        return self._resample(np.zeros(0, np.int16), last=True) if self._resampler else b""

    def _resample(self, samples: Int16, last: bool = False) -> bytes:
        """In floats: soxr dithers integers at random, and the same audio must stay the same."""
        floats = samples.astype(np.float32) / np.float32(32768)
        return float_to_int16(self._resampler.resample_chunk(floats, last=last)).tobytes()


class RejoiningConverter(InputConverter):
    """Goes on in the middle of a stream: the first `skip` samples only start its resampler."""

    def __init__(self, rate: int, encoding: Encoding, channels: int, skip: int) -> None:
        super().__init__(rate, encoding, channels)
        self._skip_bytes = skip * BYTES_PER_SAMPLE

    def push(self, pcm: bytes) -> bytes:
        return self._skipped(super().push(pcm))

    def flush(self) -> bytes:
        return self._skipped(super().flush())

    def _skipped(self, pcm: bytes) -> bytes:
        skipped = min(self._skip_bytes, len(pcm))
        self._skip_bytes -= skipped
        return pcm[skipped:]


class OutputConverter:
    """Converts a stream of speech at `VOICE_RATE` to a client's format, without clicks."""

    def __init__(self, rate: int, encoding: Encoding) -> None:
        self._encoding = encoding
        self._resampler: Any = (
            None
            if rate == VOICE_RATE
            else soxr.ResampleStream(VOICE_RATE, rate, 1, dtype="float32", quality="HQ")
        )

    def push(self, pcm: bytes, last: bool = False) -> bytes:
        """Mono pcm_s16le in; the resampler delays some of it, until `last` at the latest."""
        samples = np.frombuffer(pcm, "<i2")
        if self._resampler:
            floats = samples.astype(np.float32) / np.float32(32768)
            samples = float_to_int16(self._resampler.resample_chunk(floats, last=last))
        return from_int16(samples, self._encoding)


def parse_wav(file: bytes) -> tuple[int, int, bytes] | None:
    """Rate, channels and samples of a 16-bit PCM WAV file; None for anything else.

    As in the RIFF specification (1991); sizes beyond the file, as in streams, end with the file.
    """
    if file[:4] != b"RIFF" or file[8:12] != b"WAVE":
        return None
    at, shape = 12, None
    while at + 8 <= len(file):
        kind, size = file[at : at + 4], int.from_bytes(file[at + 4 : at + 8], "little")
        body = file[at + 8 : at + 8 + size]
        if kind == b"fmt " and len(body) >= 16:
            shape = _wav_shape(body)
        if kind == b"data":
            return (*shape, body[: len(body) - len(body) % (2 * shape[1])]) if shape else None
        at += 8 + size + size % 2
    return None


def _wav_shape(body: bytes) -> tuple[int, int] | None:
    kind, channels, bits = (int.from_bytes(body[i : i + 2], "little") for i in (0, 2, 14))
    rate = int.from_bytes(body[4:8], "little")
    usable = kind == 1 and bits == 16 and 1 <= channels <= 8 and 8_000 <= rate <= 192_000
    return (rate, channels) if usable else None


def wav_header(rate: int, size: int | None = None) -> bytes:
    """For mono 16-bit PCM with `size` bytes of samples; None: a stream of unknown length."""
    size = 0xFFFFFFFF - 36 if size is None else size
    return b"".join(
        (
            b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt ",
            (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + (1).to_bytes(2, "little"),
            rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little"),
            (2).to_bytes(2, "little") + (16).to_bytes(2, "little"),
            b"data" + size.to_bytes(4, "little"),
        )
    )
