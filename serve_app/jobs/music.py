"""Tells music from speech, so that music yields no words. Pure.

A note stays where it is: in music the fine structure of the spectrum, its peaks, is still the same
a tenth of a second later. In speech pitch and formants move all the time.
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
"""The median correlation that music has and speech, with at most 0.5, has not."""

SHORTEST = 2 * RATE
"""Shorter audio is given to the recogniser whatever it is."""


def is_music(pcm: bytes) -> bool:
    """Of 16 kHz mono pcm_s16le."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float32)
    return len(samples) >= SHORTEST and steadiness(samples) > STEADY


def steadiness(samples: Any) -> float:
    """The median correlation of spectra 100 ms apart, of loud frames; 0 where there are none."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP]
    spectra = np.sqrt(np.abs(np.fft.rfft(frames * np.hanning(FFT), axis=1)[:, BAND]))
    level = np.sqrt(np.square(frames).mean(axis=1))
    spectra = spectra - spectra.mean(axis=1, keepdims=True)
    spectra = spectra / (np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9)
    loud = level > QUIET * np.percentile(level, 95)
    both = loud[:-APART] & loud[APART:]
    alike = (spectra[:-APART] * spectra[APART:]).sum(axis=1)[both]
    return float(np.median(alike)) if len(alike) else 0.0
