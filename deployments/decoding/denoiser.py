"""FFmpeg's denoiser (`afftdn`) as a filter of 16 kHz samples."""

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deployments.interfaces import RATE

Filter = Callable[[NDArray[np.float32], bool], NDArray[np.float32]]

DENOISER_LAG = 400
"""Samples by which afftdn is late at 16 kHz."""


def as_it_is(samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
    return samples


def denoiser(noise_db: float) -> Filter:
    """16 kHz mono in, cleaned samples out, a little later but in the same places."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono")
    floor = max(-80.0, min(-20.0, noise_db))
    denoise, sink = graph.add("afftdn", f"nr=12:nf={floor:.1f}"), graph.add("abuffersink")
    source.link_to(denoise)
    denoise.link_to(sink)
    graph.configure()
    late, owed = DENOISER_LAG, 0

    def clean(samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        nonlocal late, owed
        owed += len(samples)
        if last:
            samples = np.concatenate([samples, np.zeros(2 * DENOISER_LAG, np.float32)])
        if len(samples):
            frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
            frame.sample_rate = RATE
            graph.push(frame)
        if last:
            graph.push(None)
        out = [np.zeros(0, np.float32)]
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                out.append(graph.pull().to_ndarray()[0])
        cleaned = np.concatenate(out)
        late, cleaned = max(0, late - len(cleaned)), cleaned[late:][:owed]
        owed -= len(cleaned)
        return cleaned

    return clean
