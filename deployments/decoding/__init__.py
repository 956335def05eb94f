"""Recordings in any common format to 16 kHz PCM, a window at a time, within bounds.

`decode` runs wherever it is called; servers call it through `decoding`, in a separate process,
where a file that crashes or bloats a codec harms nobody. Bounds hold while decoding, not after:
ten megabytes of Opus can be eight hours of audio.
"""

from deployments.decoding.container import duration_s
from deployments.decoding.limits import WINDOW_BYTES, Bounds, Info, Source, Undecodable
from deployments.decoding.process import Decoding, decode_in_process, decoding
from deployments.decoding.recording import decode

__all__ = [
    "WINDOW_BYTES",
    "Bounds",
    "Decoding",
    "Info",
    "Source",
    "Undecodable",
    "decode",
    "decode_in_process",
    "decoding",
    "duration_s",
]
