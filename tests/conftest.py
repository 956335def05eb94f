"""What tests share: speech, made on the spot."""

from importlib.util import find_spec

import numpy as np
import pytest

from loadtest.speech import conversation, speak

collect_ignore = [] if find_spec("torch") else ["models"]  # `make test-models` has it

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
