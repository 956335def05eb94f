"""The quality of a recording, its warnings, and the hash of its samples. Pure.

Levels are in dBFS. The noise is the 10th percentile of the level of frames without voice; the
signal-to-noise ratio is the mean power of voiced frames relative to it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deployments.vad import FRAME_BYTES, FRAME_SAMPLES

FLOOR_DB = -100
CLIPPED = 32_700
WARN_CLIPPED = 0.001
WARN_LEVEL_DB = -40.0
WARN_SNR_DB = 10.0
WARN_SPEECH = 0.02


class Quality(NamedTuple):
    samples: int
    clipping: float
    """The share of samples at full scale."""
    level_db: float
    """Of speech, or of everything without speech."""
    noise_db: float
    snr_db: float
    speech: float
    """The share of voiced frames."""
    fingerprint: str
    """SHA-256 of the samples."""

    @classmethod
    def unknown(cls, samples: int) -> "Quality":
        """The quality of audio that was not measured."""
        return cls(samples, 0.0, 0.0, 0.0, 0.0, 0.0, "")

    def warnings(self) -> list[str]:
        found = {
            "clipping": self.clipping > WARN_CLIPPED,
            "low_level": self.level_db < WARN_LEVEL_DB,
            "noisy": self.snr_db < WARN_SNR_DB and self.speech > 0,
            "little_speech": self.speech < WARN_SPEECH,
        }
        return [name for name, is_so in found.items() if is_so]

    def shown(self) -> dict[str, Any]:
        fields = self._asdict()
        del fields["samples"], fields["fingerprint"]
        return {name: round(value, 4) for name, value in fields.items()}


class QualityMeter:
    """Measures the quality of one recording, all channels together."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._samples = 0
        self._clipped = 0
        self._levels = {
            True: np.zeros(-FLOOR_DB + 1, np.int64),
            False: np.zeros(-FLOOR_DB + 1, np.int64),
        }
        self._power = {True: 0.0, False: 0.0}

    def push(self, interleaved: bytes, frames: Sequence[tuple[bytes, Sequence[bool]]]) -> None:
        """A window as it was decoded, and its frames and flags, channel by channel."""
        self._hash.update(interleaved)
        samples = np.frombuffer(interleaved, np.int16)
        self._samples += len(samples)
        self._clipped += int(np.count_nonzero((samples >= CLIPPED) | (samples <= -CLIPPED)))
        for pcm, flags in frames:
            self._count(pcm, np.asarray(flags, bool))

    def _count(self, pcm: bytes, flags: Any) -> None:
        whole = np.frombuffer(pcm[: len(flags) * FRAME_BYTES], np.int16).astype(np.float32) / 32768
        power = np.square(whole.reshape(-1, FRAME_SAMPLES)).mean(axis=1)
        levels = np.clip(10 * np.log10(power + 1e-12), FLOOR_DB, 0).astype(int)
        for voiced in (True, False):
            self._power[voiced] += float(power[flags == voiced].sum())
            self._levels[voiced] += np.bincount(-levels[flags == voiced], minlength=-FLOOR_DB + 1)

    def quality(self, channels: int) -> Quality:
        voiced, unvoiced = int(self._levels[True].sum()), int(self._levels[False].sum())
        spoken = voiced or unvoiced or 1
        level = _db(self._power[voiced > 0] / spoken)
        noise = _low(self._levels[False]) if unvoiced else _low(self._levels[True])
        return Quality(
            samples=self._samples // channels,
            clipping=self._clipped / max(1, self._samples),
            level_db=level,
            noise_db=noise,
            snr_db=max(0.0, level - noise),
            speech=voiced / max(1, voiced + unvoiced),
            fingerprint=self._hash.hexdigest(),
        )


def _db(power: float) -> float:
    return float(max(FLOOR_DB, 10 * np.log10(power + 1e-12)))


def _low(levels: Any) -> float:
    """The 10th percentile."""
    from_below = np.cumsum(levels[::-1])
    if not from_below[-1]:
        return float(FLOOR_DB)
    return float(FLOOR_DB + int(np.searchsorted(from_below, from_below[-1] / 10)))
