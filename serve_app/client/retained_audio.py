"""The audio that a client may have to send again: all that is not final. Pure.

Positions are frames (one sample of every channel) since the session began. The client's own
`finalize` and end are kept at their positions, because they must be sent again, too.
"""

from collections import deque
from typing import Literal

Command = Literal["finalize", "stop"]


class RetainedAudio:
    """A bounded buffer, with the place up to which this connection has got it."""

    def __init__(self, rate: int, frame_bytes: int, most_ms: int) -> None:
        self._rate = rate
        self._frame_bytes = frame_bytes
        self.most_ms = most_ms
        self._audio = bytearray()
        self._start = self._next = 0
        self._marks: deque[int] = deque()
        self._marks_sent = 0
        self._finished = self._stop_sent = False

    @property
    def complete(self) -> bool:
        """Whether it still has the session's first sample."""
        return self._start == 0

    @property
    def sent_ms(self) -> int:
        return self._next * 1000 // self._rate

    @property
    def _end(self) -> int:
        return self._start + len(self._audio) // self._frame_bytes

    @property
    def _most_bytes(self) -> int:
        return self.most_ms * self._rate // 1000 * self._frame_bytes

    def push(self, audio: bytes) -> int:
        """Keep as much of the audio as there is room for; the number of bytes that were kept."""
        kept = min(len(audio), max(0, self._most_bytes - len(self._audio)))
        self._audio += audio[:kept]
        return kept

    def finalize(self) -> None:
        self._marks.append(self._end)

    def finish(self) -> None:
        self._finished = True

    def confirm(self, until_ms: int) -> None:
        """Everything up to there is final: forget it."""
        until = min(until_ms * self._rate // 1000, self._next)
        if until > self._start:
            del self._audio[: (until - self._start) * self._frame_bytes]
            self._start = until
        while self._marks_sent and self._marks[0] <= self._start:
            self._marks.popleft()
            self._marks_sent -= 1

    def holds(self, from_ms: int) -> bool:
        """Whether it can send all audio from there."""
        return self._start <= from_ms * self._rate // 1000 <= self._end

    def rewind(self, to_ms: int) -> None:
        """Send again from there."""
        self._next = to = to_ms * self._rate // 1000
        self._marks_sent = sum(mark <= to for mark in self._marks)
        self._stop_sent = False
        self.confirm(to_ms)

    def take(self, most_ms: int) -> bytes | Command | None:
        """What is to be sent next, at most that much; None if there is nothing."""
        mark = self._marks[self._marks_sent] if self._marks_sent < len(self._marks) else None
        if mark == self._next:
            self._marks_sent += 1
            return "finalize"
        end = self._end if mark is None else mark
        until = min(end, self._next + most_ms * self._rate // 1000)
        if until > self._next:
            return self._taken(until)
        if self._finished and not self._stop_sent:
            self._stop_sent = True
            return "stop"
        return None

    def _taken(self, until: int) -> bytes:
        first, last = ((at - self._start) * self._frame_bytes for at in (self._next, until))
        self._next = until
        return bytes(self._audio[first:last])
