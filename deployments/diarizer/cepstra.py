"""Mel-frequency cepstra, which distinguish voices. Pure.

Frames of 25 ms every 10 ms, 26 mel filters from 100 to 7,600 Hz, cepstral coefficients 1 to 19
(Davis & Mermelstein 1980). The mean is not subtracted, because it identifies a voice.
"""

from typing import Any

import numpy as np

from deployments.interfaces import RATE

FRAME = RATE // 40
HOP = RATE // 100
FFT = 512
FILTERS = 26
COEFFICIENTS = 19


def _mel(hz: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _filters() -> Any:
    """`FILTERS` triangles over the bins of the spectrum."""
    edges = np.linspace(_mel(100), _mel(7600), FILTERS + 2)
    bins = _mel(np.arange(FFT // 2 + 1) * RATE / FFT)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def _cosines() -> Any:
    number = np.arange(1, COEFFICIENTS + 1)[:, None]
    return np.cos(np.pi * number * (np.arange(FILTERS) + 0.5) / FILTERS).astype(np.float32)


MEL = _filters()
DCT = _cosines()
WINDOW = np.hamming(FRAME).astype(np.float32)


def cepstra(samples: Any) -> Any:
    """float32 samples in; frames x `COEFFICIENTS` out, whole frames only."""
    if len(samples) < FRAME:
        return np.zeros((0, COEFFICIENTS), np.float32)
    emphasised = np.append(samples[:1], samples[1:] - np.float32(0.97) * samples[:-1])
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, FRAME)[::HOP]
    power = np.square(np.abs(np.fft.rfft(frames * WINDOW, FFT, axis=1))).astype(np.float32)
    return np.log(power @ MEL.T + np.float32(1e-7)) @ DCT.T
