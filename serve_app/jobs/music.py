"""Distinguishes music from speech, so that music yields no words. Pure.

A note is steady: in music the peaks of the spectrum are the same a tenth of a second later. In
speech pitch and formants move all the time.
"""

from typing import Any

import numpy as np

from deployments.interfaces import RATE

FFT = 1024
HOP = RATE // 50
APART = 5
"""Frames of 20 ms between the spectra that are compared."""

BAND = slice(300 * FFT // RATE, 4000 * FFT // RATE)
QUIET = 0.1
STEADY = 0.65
"""The median correlation of music is above this; that of speech is at most 0.5."""

SHORTEST = 2 * RATE
"""Shorter audio always goes to the recogniser."""


def is_music(pcm: bytes) -> bool:
    """Whether 16 kHz mono pcm_s16le is music."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float32)
    return len(samples) >= SHORTEST and steadiness(samples) > STEADY


def steadiness(samples: Any) -> float:
    """The median correlation of spectra 100 ms apart, of loud frames; 0 without any."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP]
    spectra = np.sqrt(np.abs(np.fft.rfft(frames * np.hanning(FFT), axis=1)[:, BAND]))
    level = np.sqrt(np.square(frames).mean(axis=1))
    spectra = spectra - spectra.mean(axis=1, keepdims=True)
    spectra = spectra / (np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9)
    loud = level > QUIET * np.percentile(level, 95)
    both = loud[:-APART] & loud[APART:]
    alike = (spectra[:-APART] * spectra[APART:]).sum(axis=1)[both]
    return float(np.median(alike)) if len(alike) else 0.0
