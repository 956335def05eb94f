"""The audio of a live session on its way through the VAD. Pure.

Positions are samples at 16 kHz since the session began.
"""

from deployments.interfaces import BYTES_PER_SAMPLE, RATE

FRAME_SAMPLES = RATE // 50
"""The VAD works on frames of 20 ms; a replica begins at the start of one."""


class AudioBuffer:
    """Audio that the VAD has not judged yet, and, outside utterances, the last that it has."""

    __slots__ = ("_pending", "_tail", "position", "received")

    def __init__(self) -> None:
        self.received = 0
        self.position = 0
        """The VAD has judged the audio up to here."""
        self._pending: list[bytes] = []
        self._tail = b""

    @property
    def drained(self) -> bool:
        return self.position >= self.received

    def begin(self, position: int) -> None:
        """What comes is the audio from here on."""
        self.received = self.position = position

    def push(self, pcm: bytes) -> None:
        self.received += len(pcm) // BYTES_PER_SAMPLE
        self._pending.append(pcm)

    def pop(self, until: int) -> bytes:
        """The audio from `position` to `until`, which is judged now."""
        wanted = (until - self.position) * BYTES_PER_SAMPLE
        self.position = until
        first = self._pending[0]
        if len(first) == wanted:
            return self._pending.pop(0)
        whole = b"".join(self._pending)
        rest = whole[wanted:]
        self._pending = [rest] if rest else []
        return whole[:wanted]

    def clear(self) -> None:
        """Drop everything received so far."""
        self._tail = b""
        self._pending = []
        self.position = self.received

    def remember(self, pcm: bytes, most_ms: int) -> None:
        """Keep judged audio that is in no utterance: the next one may begin in it."""
        size = most_ms * RATE // 1000 * BYTES_PER_SAMPLE
        self._tail = (self._tail + pcm)[-size:]

    def trim(self, start: int) -> None:
        """Forget what was remembered before sample `start`."""
        size = min((self.position - start) * BYTES_PER_SAMPLE, len(self._tail))
        self._tail = self._tail[len(self._tail) - size :]

    def take_remembered(self) -> bytes:
        """The remembered audio, which ends at `position`."""
        tail, self._tail = self._tail, b""
        return tail

    @property
    def frame(self) -> int:
        """Where the frame begins that the VAD judges next."""
        return self.position - self.position % FRAME_SAMPLES

    def replay(self, judged: bytes | None) -> tuple[int, bytes]:
        """For a VAD that knows nothing of the session: a frame's start, and all audio from there.

        `judged` is audio up to `position` for it to hear again; None: what is remembered here.
        """
        latest = self._tail if judged is None else judged
        heard = self.position - len(latest) // BYTES_PER_SAMPLE
        start = min(heard + -heard % FRAME_SAMPLES, self.frame)
        size = (self.position - start) * BYTES_PER_SAMPLE
        again = latest[-size:].rjust(size, b"\0") if size else b""
        return start, again + b"".join(self._pending)
