"""Where a live session can be resumed: what a server that knows nothing of it must know. Pure.

Positions are samples at 16 kHz since the session began. The VAD must hear some audio again that is
already final; what the client sends again begins at a whole second before that, which is a whole
number of samples in any format, and gives its resampler some audio to start with.
"""

from typing import NamedTuple

from deployments.interfaces import RATE, RECALL
from serve_app.live.audio_buffer import FRAME_SAMPLES

CUT_RECALL = 3 * RATE
"""The VAD has no fresh start within speech: it hears this much again to find its way back."""

RESAMPLER_START = RATE // 5


class ResumePoint(NamedTuple):
    """Everything before sample `audio` is final."""

    audio: int = 0
    listen: int = 0
    """The VAD goes on from here."""
    speaking: bool = False
    """The utterance was cut in the middle of speech."""
    utterance: int = 0
    """The number of the next utterance."""
    utterance_ended: int = 0
    speech_ended: int = 0
    speech: int = 0
    """Samples in all utterances so far."""
    words: int = 0
    failures: int = 0
    heard: int = 0
    """Samples received so far. They are counted as used: to send them again costs nothing."""

    @property
    def send_from(self) -> int:
        """Where the client's audio must begin: at a whole second."""
        return max(0, self.listen - RESAMPLER_START) // RATE * RATE


def listen_from(sample: int, speaking: bool) -> int:
    """Where a VAD must begin that is to go on from `sample`."""
    recall = CUT_RECALL if speaking else RECALL
    return max(0, sample - sample % FRAME_SAMPLES - recall)
