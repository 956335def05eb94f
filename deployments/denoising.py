"""Steady noise taken away with FFmpeg's denoiser (`afftdn`)."""

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.audio import float_to_int16
from deployments.interfaces import RATE

LAG = 400
"""Samples by which afftdn is late at 16 kHz."""

QUIETEST_DB, LOUDEST_DB = -80.0, -20.0
"""Noise floors that afftdn takes."""


def denoised(pcm: bytes, noise_db: float) -> bytes:
    """16 kHz mono pcm_s16le, as long and in the same places, without steady noise of a level of
    `noise_db` dB of full scale."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
    graph = _graph(noise_db)
    graph.push(_frame(np.concatenate([samples, np.zeros(2 * LAG, np.float32)])))
    graph.push(None)
    cleaned = _pulled(graph)[LAG:][: len(samples)]
    return float_to_int16(cleaned).tobytes()


def _graph(noise_db: float) -> Any:
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono")
    floor = max(QUIETEST_DB, min(LOUDEST_DB, noise_db))
    denoise, sink = graph.add("afftdn", f"nr=12:nf={floor:.1f}"), graph.add("abuffersink")
    source.link_to(denoise)
    denoise.link_to(sink)
    graph.configure()
    return graph


def _frame(samples: NDArray[np.float32]) -> Any:
    import av

    frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
    frame.sample_rate = RATE
    return frame


def _pulled(graph: Any) -> NDArray[np.float32]:
    import av

    out = [np.zeros(0, np.float32)]
    with contextlib.suppress(av.BlockingIOError, av.EOFError):
        while True:
            out.append(graph.pull().to_ndarray()[0])
    return np.concatenate(out)
