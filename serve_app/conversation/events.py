"""The facts that a turn takes, the orders that it gives, the events for its client. Pure."""

from dataclasses import dataclass, field

from deployments.interfaces import (
    ChatDelta,
    ChatRequest,
    Message,
)
from serve_app.conversation.history import Item
from serve_app.conversation.reply import ReplySettings, Stages, Timing
from serve_app.errors import ClientError
from serve_app.live.events import (
    EagerFinal,
    SpeechConfirmed,
    TranscriptUpdate,
    TurnResumed,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceFailed,
    UtteranceOpened,
)


@dataclass(frozen=True, slots=True)
class Configured:
    settings: ReplySettings


@dataclass(frozen=True, slots=True)
class ItemCreate:
    item: Item
    after: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDelete:
    id: str


@dataclass(frozen=True, slots=True)
class ItemRetrieve:
    id: str


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    """The client stopped playing a reply at `audio_end_ms` of it."""

    id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ReplyCreate:
    """`settings` and `messages` in place of the session's; `remembered`: it joins the history."""

    settings: ReplySettings | None = None
    messages: tuple[Message, ...] | None = None
    remembered: bool = True
    metadata: object = None


@dataclass(frozen=True, slots=True)
class ReplyCancel:
    number: int | None = None


@dataclass(frozen=True, slots=True)
class ChatDeltaReceived:
    reply: int
    delta: ChatDelta


@dataclass(frozen=True, slots=True)
class AudioDeltaReceived:
    reply: int
    clause: int
    pcm: bytes
    engine_ms: float


@dataclass(frozen=True, slots=True)
class ClauseSpoken:
    """A clause is spoken to its end."""

    reply: int
    clause: int


@dataclass(frozen=True, slots=True)
class WorkFailed:
    reply: int
    error: ClientError


SpeechFact = (
    UtteranceOpened
    | SpeechConfirmed
    | EagerFinal
    | TurnResumed
    | UtteranceEnded
    | UtteranceDropped
    | TranscriptUpdate
    | UtteranceFailed
)


ClientFact = (
    Configured | ItemCreate | ItemDelete | ItemRetrieve | ItemTruncate | ReplyCreate | ReplyCancel
)


WorkFact = ChatDeltaReceived | AudioDeltaReceived | ClauseSpoken | WorkFailed


Fact = SpeechFact | ClientFact | WorkFact


@dataclass(frozen=True, slots=True)
class Generate:
    reply: int
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Speak:
    reply: int
    clause: int
    text: str
    voice: str
    speed: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop all work for a reply."""

    reply: int


@dataclass(frozen=True, slots=True)
class TurnStarted:
    item: str
    sample: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    item: str
    sample: int


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: Item
    after: str | None
    committed: bool = False
    """It is the speech that just ended."""


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    id: str


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    item: Item


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class TranscriptPartial:
    item: str
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptFinal:
    item: str
    text: str
    audio_ms: int


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    item: str
    error: ClientError


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    reply: int
    settings: ReplySettings
    metadata: object


@dataclass(frozen=True, slots=True)
class ReplyItemAdded:
    """A new item of the reply's output, still empty."""

    reply: int
    index: int
    item: Item
    remembered: bool
    """It joins the conversation."""
    after: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyTextDelta:
    reply: int
    item: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudioDelta:
    """pcm_s16le, mono, at `VOICE_RATE`."""

    reply: int
    item: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class ReplyCallDelta:
    """The next piece of a call's arguments."""

    reply: int
    index: int
    item: str
    call_id: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ReplyItemEnded:
    reply: int
    index: int
    item: Item
    remembered: bool


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """`status` is completed, cancelled, incomplete or failed; `reason` says why where not the
    first; `items` are those that the client knows."""

    reply: int
    status: str
    reason: str | None
    items: tuple[Item, ...]
    tokens: tuple[int, int]
    audio_ms: int
    stages: Stages
    settings: ReplySettings
    metadata: object
    error: ClientError | None = None
    timing: Timing = field(default_factory=Timing)
    """As `stages`."""


ReplyEvent = (
    ReplyStarted
    | ReplyItemAdded
    | ReplyTextDelta
    | ReplyAudioDelta
    | ReplyCallDelta
    | ReplyItemEnded
    | ReplyEnded
)


Event = (
    TurnStarted
    | TurnEnded
    | ItemAdded
    | ItemDeleted
    | ItemRetrieved
    | ItemTruncated
    | TranscriptPartial
    | TranscriptFinal
    | TranscriptFailed
    | ReplyEvent
)


Order = Generate | Speak | Cancel | Event
