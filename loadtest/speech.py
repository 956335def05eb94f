"""Speech to send, made by espeak-ng: the same text is always the same samples.

espeak-ng keeps state from one text to the next, so each text gets a new process.
"""

import functools
import io
import subprocess
import sys
import wave
from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.interfaces import RATE
from deployments.speaker import espeak_library

SENTENCES = (
    "The weather in Paris will be sunny and warm tomorrow.",
    "Please call me a taxi for half past nine in the morning.",
    "I would like to know how many people one machine can serve.",
    "She opened the window and listened to the rain for a while.",
)


@functools.cache
def speak(text: str, voice: str = "en-us", words_per_minute: int = 150) -> NDArray[np.int16]:
    """The text as 16 kHz mono int16 samples, read-only."""
    command = [sys.executable, "-m", "loadtest.speech", text, voice, str(words_per_minute)]
    pcm = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(pcm, "<i2")


def _spoken_here(text: str, voice: str, words_per_minute: int) -> bytes:
    pieces: list[bytes] = []

    def take(pcm: bytes) -> bool:
        pieces.append(pcm)
        return False

    espeak_library.speak(text, voice, words_per_minute, take)
    _, rate = espeak_library.library()
    spoken: NDArray[np.int16] = soxr.resample(np.frombuffer(b"".join(pieces), "<i2"), rate, RATE)
    return spoken.tobytes()


def conversation(sentences: Sequence[str] = SENTENCES, pause_s: float = 0.8) -> bytes:
    """The sentences with pauses between them, as pcm_s16le at 16 kHz."""
    pause = np.zeros(int(pause_s * RATE), np.int16)
    parts = [part for sentence in sentences for part in (speak(sentence), pause)]
    return np.concatenate(parts).tobytes()


def wav(pcm: bytes, rate: int = 16_000, channels: int = 1) -> bytes:
    """The samples as a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return out.getvalue()


if __name__ == "__main__":
    sys.stdout.buffer.write(_spoken_here(sys.argv[1], sys.argv[2], int(sys.argv[3])))
