"""What a client asks of a live session: its audio's format, and its options. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deployments.interfaces.audio import SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The fields of `start`: docs/protocol.md describes them."""

    sample_rate: int = 16_000
    encoding: str = "pcm_s16le"
    channels: int = 1
    language: str | None = None
    interim_results: bool = True
    session_id: str | None = None
    hotwords: Sequence[str] = ()
    grammar: str | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return SAMPLE_BYTES[self.encoding] * self.channels

    def start(self) -> dict[str, Any]:
        """The message that opens the session: what is not the server's default."""
        default = asdict(LiveOptions())
        given = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {"type": "start", **given}
