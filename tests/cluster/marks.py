"""Speech with numbered marks in it, and an engine whose words are the marks that it hears.

A word that is lost, heard twice or out of order shows, wherever an utterance begins and ends: the
words of the simulated engine depend on that, and a Vad that takes over may decide it differently.
"""

from collections.abc import Sequence

import numpy as np

from deployments.interfaces import BYTES_PER_SAMPLE, RATE, Word
from deployments.transcriber.sim import SimTranscriber, _Progress
from loadtest.speech import SENTENCES, speak

MAGIC = np.array([9176, -23521, 311, 17003, -8087, 30011, -29873, 4099], "<i2").tobytes()
NUMBER_BYTES = 2
MARK_BYTES = len(MAGIC) + NUMBER_BYTES
EVERY_S = 0.25
BORDER_S = 0.7
"""No marks at the borders of a sentence, which may move by some tens of milliseconds."""
PAUSE_S = 0.8


def marked_talk(sentences: Sequence[str] = SENTENCES) -> tuple[bytes, str]:
    """Sentences with pauses, 16 kHz pcm_s16le; and the words of their marks."""
    pause = bytes(int(PAUSE_S * RATE) * BYTES_PER_SAMPLE)
    pieces, count = [], 0
    for sentence in sentences:
        pcm = bytearray(speak(sentence).tobytes())
        for at in _places(len(pcm) // BYTES_PER_SAMPLE):
            place = at * BYTES_PER_SAMPLE
            pcm[place : place + MARK_BYTES] = MAGIC + count.to_bytes(NUMBER_BYTES, "little")
            count += 1
        pieces += [bytes(pcm), pause]
    return b"".join(pieces), " ".join(f"w{number}" for number in range(count))


def _places(samples: int) -> range:
    border = int(BORDER_S * RATE)
    return range(border, samples - border, int(EVERY_S * RATE))


class MarkTranscriber(SimTranscriber):
    """Its words are the marks in the audio."""

    name = "marks"

    def __init__(self) -> None:
        super().__init__(latency_ms=50, words_per_second=2.5, error_rate=0, seed=0)

    def _words_in(self, progress: _Progress, pcm: bytes, ended: bool) -> list[Word]:
        window = progress.tail + pcm
        begin = progress.received - len(progress.tail)
        progress.received += len(pcm)
        words, at = [], window.find(MAGIC)
        while 0 <= at <= len(window) - MARK_BYTES:
            number = int.from_bytes(window[at + len(MAGIC) : at + MARK_BYTES], "little")
            start = (begin + at) // BYTES_PER_SAMPLE
            words.append(Word(f"w{number}", start, start + MARK_BYTES, 1.0))
            at = window.find(MAGIC, at + MARK_BYTES)
        progress.words += len(words)
        progress.tail = window[-(MARK_BYTES - 1) :]
        return words
