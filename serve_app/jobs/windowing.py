"""Splits a recording into windows that contain all of its speech, at pauses. Pure.

A window begins a little before speech and ends after a long pause, or before it gets longer than
30 s: then in the middle of its longest pause. Without a pause it ends at 30 s and the next window
begins 2 s earlier, so that a word on the border is whole in one of them. Positions are samples.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deployments.interfaces import BYTES_PER_SAMPLE, RATE
from deployments.transcriber.windows import LONGEST, OVERLAP
from deployments.vad import FRAME_BYTES, FRAME_SAMPLES

LONGEST_FRAMES = LONGEST // FRAME_SAMPLES
OVERLAP_FRAMES = OVERLAP // FRAME_SAMPLES
MIN_SPEECH = 3
"""Voiced frames in a row (60 ms) that are speech; fewer are a click."""

PREFIX = 15
"""Frames (300 ms) that a window contains before and after its speech."""

LONG_PAUSE = 50
"""Frames without voice (1 s) that end a window."""

SHORT_PAUSE = 10
"""Frames without voice (200 ms) in which a full window may be cut."""

EARLIEST = 10 * RATE // FRAME_SAMPLES
"""A full window is not cut before this frame."""


class Window(NamedTuple):
    """Audio to transcribe: pcm_s16le at `RATE`, from sample `start` of its channel.

    The first `overlap` samples are also at the end of the previous window; with `goes_on`,
    the last samples of this window are also in the next one.
    """

    channel: int
    start: int
    overlap: int
    pcm: bytes
    goes_on: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.pcm) // BYTES_PER_SAMPLE


class Windowing:
    """The windows of one channel, from its frames of 20 ms and whether each is voiced."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._pcm = bytearray()
        self._flags: list[bool] = []
        self._start = 0
        """The frame that `_flags` begins with."""
        self._open = False
        self._overlap = 0

    def push(self, pcm: bytes, flags: Sequence[bool]) -> Iterator[Window]:
        """Whole frames, as many as there are flags."""
        for number, voiced in enumerate(flags):
            self._pcm += pcm[number * FRAME_BYTES : (number + 1) * FRAME_BYTES]
            self._flags.append(voiced)
            yield from self._in_window() if self._open else self._between()

    def finish(self) -> Iterator[Window]:
        """The last window, if one is open."""
        if self._open:
            yield self._window(len(self._flags))
            self._open = False

    def _between(self) -> Iterator[Window]:
        if all(self._flags[-MIN_SPEECH:]) and len(self._flags) >= MIN_SPEECH:
            self._open = True
        else:
            self._drop(len(self._flags) - PREFIX - MIN_SPEECH + 1)
        yield from ()

    def _in_window(self) -> Iterator[Window]:
        if not any(self._flags[-LONG_PAUSE:]) and len(self._flags) >= LONG_PAUSE:
            yield self._window(len(self._flags) - LONG_PAUSE + PREFIX)
            self._drop(len(self._flags) - PREFIX)
            self._open, self._overlap = False, 0
        elif len(self._flags) >= LONGEST_FRAMES:
            yield from self._cut()

    def _cut(self) -> Iterator[Window]:
        pause = longest_pause(self._flags, EARLIEST)
        yield self._window(pause or len(self._flags), goes_on=not pause)
        self._drop(pause or len(self._flags) - OVERLAP_FRAMES)
        self._overlap = 0 if pause else OVERLAP_FRAMES

    def _window(self, frames: int, goes_on: bool = False) -> Window:
        return Window(
            self._channel,
            self._start * FRAME_SAMPLES,
            self._overlap * FRAME_SAMPLES,
            bytes(self._pcm[: frames * FRAME_BYTES]),
            goes_on,
        )

    def _drop(self, frames: int) -> None:
        if frames > 0:
            del self._flags[:frames], self._pcm[: frames * FRAME_BYTES]
            self._start += frames


def longest_pause(flags: Sequence[bool], earliest: int) -> int | None:
    """The frame in the middle of the longest pause, the last of several; None without one."""
    best, middle, begin = SHORT_PAUSE - 1, None, earliest
    for at in range(earliest, len(flags) + 1):
        if at == len(flags) or flags[at]:
            if at - begin > 0 and at - begin >= max(best, SHORT_PAUSE):
                best, middle = at - begin, (begin + at) // 2
            begin = at + 1
    return middle
