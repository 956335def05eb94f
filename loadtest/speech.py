"""Speech to send: espeak-ng speaks it on the spot. One state machine: call from one thread."""

import io
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


def speak(text: str, voice: str = "en-us", words_per_minute: int = 150) -> NDArray[np.int16]:
    """The text as 16 kHz mono int16 samples."""
    pieces: list[bytes] = []

    def take(pcm: bytes) -> bool:
        pieces.append(pcm)
        return False

    espeak_library.speak(text, voice, words_per_minute, take)
    _, rate = espeak_library.library()
    spoken: NDArray[np.int16] = soxr.resample(np.frombuffer(b"".join(pieces), "<i2"), rate, RATE)
    return spoken


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
