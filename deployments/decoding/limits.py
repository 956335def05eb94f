"""What is decoded, how much of it at most, and how it fails."""

from typing import Annotated, Literal, NamedTuple, Protocol

from msgspec import Meta

from deployments.interfaces import BYTES_PER_SAMPLE, RATE

MAX_CHANNELS = 8
MIN_FILE_RATE, MAX_FILE_RATE = 4_000, 192_000
WINDOW_BYTES = RATE * BYTES_PER_SAMPLE
"""A second of 16 kHz mono: what `decoding` yields at a time, of every channel."""

BLOCK_BYTES = 256 << 10
"""The most that a decoder asks of a `Source` at once."""

Code = Literal["unreadable_audio", "too_many_channels", "recording_too_long", "decode_timeout"]
Text = Annotated[str, Meta(max_length=300)]


class Bounds(NamedTuple):
    """What is decoded, and how much of it at most."""

    max_s: float
    """Seconds of audio."""
    cpu_s: float
    """Seconds of processor time."""
    split: bool = False
    """Channels stay apart, interleaved; else they are averaged."""
    background: bool = False
    """Nobody waits for it: whoever speaks live goes first."""
    wait_s: float = 60.0
    """Seconds that its reader waits for it; a second of audio that arrives earns ten more."""


class Info(NamedTuple):
    """What the file says of itself; `channels` is how many come out."""

    format: Text
    codec: Text
    rate: int
    file_channels: int
    channels: Annotated[int, Meta(ge=1, le=MAX_CHANNELS)]
    duration_s: float | None


class Source(Protocol):
    """A file that is read where asked: an object in a store, say."""

    size: int

    async def read(self, start: int, end: int) -> bytes: ...


class Undecodable(Exception):
    """`code` is one of the API's error codes."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
