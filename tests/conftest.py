"""What tests share: speech, made on the spot."""

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
