"""What the application asks of a model, and the values that cross a process boundary to ask it.

Positions and lengths are samples at `RATE` (16 kHz, mono); `pcm` is signed 16-bit little-endian.
The values below travel ten thousand times a second, so they are NamedTuples, which cost a third
of what frozen dataclasses do.
"""

from collections.abc import AsyncIterator, Hashable, Sequence
from enum import Enum, StrEnum
from typing import Any, NamedTuple, Protocol

RATE = 16_000
"""Hz: the one rate of what is heard. Every dialect resamples to it at its edge."""

VOICE_RATE = 24_000
"""Hz: the one rate of what is spoken. Every speaker engine resamples to it."""

BYTES_PER_SAMPLE = 2


class Word(NamedTuple):
    """A word and its place, in samples since the start of its utterance."""

    text: str
    start: int
    end: int
    confidence: float


class SpeechOptions(NamedTuple):
    """What a client asked of the recogniser; the same for a whole session."""

    language: str | None = None
    interim_results: bool = True
    hotwords: tuple[str, ...] = ()
    grammar: str | None = None
    prompt: str | None = None
    """A question about the audio: the engine answers it instead of writing down what was said."""
    batch: bool = False
    """Nobody waits for it: whoever speaks live goes first."""


class Endpoint(NamedTuple):
    """What makes speech start and end, in ms; a session's own. 0 ms: never told."""

    aggressiveness: int = 2
    """0 hears speech most readily, 3 is the strictest."""
    min_speech_ms: int = 60
    min_silence_ms: int = 500
    pause_ms: int = 0
    """Silence after which speech has perhaps ended."""
    steady_ms: int = 0
    """Voice, in all, that makes speech more than a cough."""


class Resume(NamedTuple):
    """Where a replica begins to hear a session: at the border of a frame of 20 ms."""

    sample: int
    speaking: bool
    endpoint: Endpoint


class VadInput(NamedTuple):
    """Audio of one session that the VAD has not heard yet.

    `resume` stands on the first piece a replica gets of a session, and on the first one after the
    session's endpoint has changed.
    """

    session: int
    pcm: bytes
    resume: Resume | None = None


class Edge(Enum):
    """What changes in a session's audio."""

    START = "start"
    """Speech starts, at its first sample, before any prefix."""
    STEADY = "steady"
    """Enough of the speech was voice."""
    PAUSE = "pause"
    """Speech has perhaps ended; END or RESUME follows."""
    RESUME = "resume"
    """It had not."""
    END = "end"
    """Speech has ended, after the silence that shows it."""


class Transition(NamedTuple):
    edge: Edge
    sample: int


class VadResult(NamedTuple):
    """The VAD has heard a session up to sample `until`; `voiced` if any frame of it was voice.

    The part of a frame at the end counts as heard: no transition will lie before it, for all
    happen at the end of a frame but the start of speech, which is dated back.
    """

    session: int
    until: int
    transitions: tuple[Transition, ...]
    voiced: bool


class Speech(NamedTuple):
    """The next piece of an utterance. `options` stands on its first piece, `ended` on its last."""

    session: int
    utterance: int
    pcm: bytes
    ended: bool = False
    options: SpeechOptions | None = None


class Hypothesis(NamedTuple):
    """What the recogniser believes of an utterance's first `until` samples.

    `words` replaces the words from index `keep` on, so that a growing utterance does not send
    its old words again. `failure` is set instead of words when the engine failed.
    """

    session: int
    utterance: int
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None
    language: str | None = None
    """What the engine heard spoken, on a final; None where it does not tell."""


class SpeakerCount(NamedTuple):
    """How many people speak, at least and at most."""

    least: int = 1
    most: int = 20


class SpeakerTurn(NamedTuple):
    """One person speaks, in samples of the recording."""

    speaker: int
    """0 is the one who speaks first."""
    start: int
    end: int


class DiarizationInput(NamedTuple):
    """The next piece of a recording whose speakers are asked for, in order."""

    session: int
    pcm: bytes
    ended: bool = False
    speakers: SpeakerCount = SpeakerCount()


class DiarizationResult(NamedTuple):
    """The diarizer has heard a recording up to sample `until`; the last one is `final`."""

    session: int
    until: int
    turns: tuple[SpeakerTurn, ...] = ()
    final: bool = False
    failure: str | None = None


class LaneLost(Exception):
    """Audio came of a session that did not begin in this lane."""


class Vad(Protocol):
    """Speech start and end of many sessions; answers from `exchange`."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[VadResult]]: ...

    async def exchange(
        self, lane: str, batch: Sequence[VadInput], left: Sequence[int]
    ) -> Sequence[VadResult]: ...


class Option(StrEnum):
    """What a client may ask for and not every engine can do. An engine declares its `options`; what
    it does not declare is never passed to it silently: the request is refused, or the answer says
    that the option was ignored. The values are the names of fields in `SpeechOptions`,
    `ChatOptions`, `SpeechRequest` and `SpeakerCount`, where there is such a field.
    """

    LANGUAGE = "language"
    """A transcriber recognises the language that it is told."""
    HOTWORDS = "hotwords"
    GRAMMAR = "grammar"
    """JSGF; nothing else is recognised."""
    PROMPT = "prompt"
    """A question about the audio is answered."""

    INSTRUCTIONS = "instructions"
    """A chat engine follows `system` messages."""
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    MAX_TOKENS = "max_tokens"
    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    STOP = "stop"
    SEED = "seed"
    JSON = "json"

    SPEED = "speed"
    BLEND = "blend"
    """Several voices at once, as in `af_heart(2)+af_bella(1)`."""

    SPEAKERS = "speakers"
    """The least and the most number of speakers in a recording."""


Options = frozenset[Option]
NO_OPTIONS: Options = frozenset()


def options_of(engine: object) -> Options:
    """What an engine, or its class, declares. Nothing optional unless it says so."""
    declared: Options = getattr(engine, "options", NO_OPTIONS)
    return declared


class Transcriber(Protocol):
    """Words of many sessions; answers over `listen`. A lane is open while it is listened to."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Hypothesis]]: ...

    async def exchange(self, lane: str, batch: Sequence[Speech], left: Sequence[int]) -> None: ...


class Utterance(NamedTuple):
    """The next piece of an utterance as an engine gets it; `key` is unique in the replica."""

    key: Hashable
    pcm: bytes
    ended: bool
    options: SpeechOptions


class EngineHypothesis(NamedTuple):
    """An engine's words for the first `until` samples of the utterance `key`; see `Hypothesis`."""

    key: Hashable
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None
    language: str | None = None


class Emit(Protocol):
    """Called by an engine, on its event loop, with whatever it has found out."""

    def __call__(self, hypotheses: Sequence[EngineHypothesis], /) -> None: ...


class TranscriberEngine(Protocol):
    """A speech recogniser. Implement this to bring your own model.

    `feed` gets one batch a tick with the new audio of every utterance that has some, and returns
    when it has taken it; it need not have decoded it. It calls `emit` whenever it has words, and
    exactly once with `final=True` for every utterance whose `ended` piece it was fed.
    `forget` drops utterances whose client has gone; their words are no longer wanted.
    """

    name: str
    languages: tuple[str, ...] | None
    """ISO 639-1 codes, or None when it takes any."""
    revises: bool
    """A final may differ from the partials before it; if not, words are only ever added."""
    options: Options
    """Of LANGUAGE, HOTWORDS, GRAMMAR and PROMPT those that it uses."""

    async def start(self, emit: Emit) -> None: ...

    async def feed(self, batch: Sequence[Utterance]) -> None: ...

    async def forget(self, keys: Sequence[Hashable]) -> None: ...

    async def stop(self) -> None: ...


# Requests: asked once, answered piece by piece, cancelled by leaving.


class ToolCall(NamedTuple):
    """A function the model wants called. While a reply is written `arguments` is the next piece
    of them, and `id` and `name` stand on the first piece."""

    number: int
    """Of the call in its reply."""
    id: str
    name: str
    arguments: str


class Message(NamedTuple):
    """One message of a conversation, as OpenAI's chat API has them."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    """The call that a `tool` message answers."""


class Tool(NamedTuple):
    name: str
    description: str
    parameters: str
    """A JSON schema, as text."""


class ChatOptions(NamedTuple):
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or a tool's name."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    json: bool = False
    """The reply must be a JSON object."""


class ChatRequest(NamedTuple):
    """Wants a reply to the last of the messages. Answered by `ChatDelta`."""

    session: int
    messages: tuple[Message, ...]
    options: ChatOptions = ChatOptions()


class ChatDelta(NamedTuple):
    """The next piece of a reply. The last one has `finish` or `failure`.

    `finish` is `stop`, `length`, `tool_calls` or `content_filter`; `tokens` are those of the prompt
    and those of the reply so far, `engine_ms` the time since the replica had the request.
    """

    session: int
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    failure: str | None = None
    tokens: tuple[int, int] = (0, 0)
    engine_ms: float = 0.0

    @property
    def ended(self) -> bool:
        return self.finish is not None or self.failure is not None


class SpeechRequest(NamedTuple):
    """Wants text spoken. Answered by `AudioDelta`."""

    session: int
    text: str
    voice: str
    speed: float = 1.0
    """1 is the voice's own pace; from 0.25 to 4."""
    clause: int = 0
    """Its number in what is being said; somebody waits in silence for the first one, 0."""


class AudioDelta(NamedTuple):
    """The next of the speech: mono pcm_s16le at `VOICE_RATE`. The last one is `final` or failed."""

    session: int
    pcm: bytes = b""
    final: bool = False
    failure: str | None = None
    engine_ms: float = 0.0

    @property
    def ended(self) -> bool:
        return self.final or self.failure is not None


class EngineFailed(Exception):
    """An engine cannot do what it was asked for; the text goes to the client."""


class EngineDied(Exception):
    """An engine can do no more at all. Nobody is told: its replica ends, the lanes with it, and
    what had no answer yet is asked elsewhere."""


class Supervised(Protocol):
    """An engine with processes of its own, which can die or freeze."""

    async def died(self) -> str:
        """Returns when the engine can do no more, with the reason; its processes are gone then."""


class Voice(NamedTuple):
    id: str
    language: str
    """A BCP 47 tag in lower case, such as `en-us`."""
    gender: str
    """`female`, `male` or `unknown`."""
    name: str


class ChatEngine(Protocol):
    """Writes replies. `reply` yields pieces; closing it stops the model. Raises `EngineFailed`."""

    name: str
    options: Options
    """Those from INSTRUCTIONS to JSON that it uses."""

    async def start(self) -> None: ...

    def reply(self, ask: ChatRequest) -> AsyncIterator[ChatDelta]: ...

    async def stop(self) -> None: ...

    def made(self) -> int:
        """Tokens written since the start, by which a test knows that cancelling stops it."""


class SpeakerEngine(Protocol):
    """Speaks text. `speak` yields mono pcm_s16le at `VOICE_RATE`; closing it stops the model."""

    name: str
    options: Options
    """Of SPEED and BLEND those that it uses."""

    async def start(self) -> None: ...

    async def voices(self) -> Sequence[Voice]: ...

    def speak(self, say: SpeechRequest) -> AsyncIterator[bytes]: ...

    async def stop(self) -> None: ...

    def made(self) -> int:
        """Samples spoken since the start."""


class Requests(Protocol):
    """A model that is asked rather than fed: answers stream over `listen`."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Any]]: ...

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> None: ...


class DiarizerEngine(Protocol):
    """Tells who spoke when. `diarize` pulls the recording (16 kHz mono pcm, in pieces of any size)
    and returns its turns in order. Cancelling it stops the model. Raises `EngineFailed`."""

    name: str
    options: Options
    """SPEAKERS, if it uses it."""

    async def start(self) -> None: ...

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]: ...

    async def stop(self) -> None: ...
