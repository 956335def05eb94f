"""What tests share: speech, made on the spot."""

import io
import wave

import numpy as np
import pytest

from loadtest.speech import conversation, speak

SAID = "The weather in Paris will be sunny and warm tomorrow."


@pytest.fixture(scope="session")
def speech() -> bytes:
    """One sentence with silence before and after, 16 kHz pcm_s16le."""
    pause = np.zeros(12_800, np.int16)
    return np.concatenate([pause, speak(SAID), pause]).tobytes()


@pytest.fixture(scope="session")
def talk() -> bytes:
    """Four sentences with pauses, 16 kHz pcm_s16le."""
    return conversation()


def wav(pcm: bytes, rate: int = 16_000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return out.getvalue()
