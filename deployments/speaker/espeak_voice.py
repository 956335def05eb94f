"""The espeak-ng process: the library has global state.

Run by `deployments.speaker.espeak`. A request comes on stdin as a line of JSON; the answer goes to
stdout in frames (`framing`) of pcm_s16le at 24 kHz; an empty frame ends it.
The process ends when stdin does, so it never outlives the replica.
"""

import json
import os
import sys
from typing import BinaryIO

import msgspec
import numpy as np
import soxr

from deployments.audio import float_to_int16
from deployments.framing import frame
from deployments.interfaces import VOICE_RATE
from deployments.speaker import espeak_library

PIECE_BYTES = VOICE_RATE // 10 * 2
"""A tenth of a second: resampled and sent together."""


class Voicing:
    """Resamples the speech of one request and writes it to the pipe."""

    def __init__(self, out: BinaryIO, rate: int) -> None:
        self._out = out
        self._resampler = soxr.ResampleStream(rate, VOICE_RATE, 1, dtype="float32", quality="HQ")
        self._pcm = bytearray()

    def take(self, pcm: bytes) -> bool:
        self._pcm += pcm
        if len(self._pcm) >= PIECE_BYTES:
            self._send(last=False)
        return False

    def finish(self) -> None:
        self._send(last=True)
        self._out.write(frame(b""))
        self._out.flush()

    def _send(self, last: bool) -> None:
        floats = np.frombuffer(bytes(self._pcm), "<i2").astype(np.float32) / np.float32(32768)
        self._pcm.clear()
        pcm = float_to_int16(self._resampler.resample_chunk(floats, last=last)).tobytes()
        if pcm:
            self._out.write(frame(pcm))
            self._out.flush()


def main() -> None:
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library may print
    _, rate = espeak_library.library()
    out.write(frame(msgspec.json.encode(espeak_library.voices())))
    out.flush()
    for line in sys.stdin.buffer:
        command = json.loads(line)
        voicing = Voicing(out, rate)
        espeak_library.speak(
            command["text"], command["voice"], command["words_per_minute"], voicing.take
        )
        voicing.finish()
