"""The `session` object of the OpenAI Realtime dialect: merged, checked, and what it means. Pure.

Shapes as in the OpenAI API reference, "Realtime" (GA). Clients send more than any server does: what
is not in force is named in `ignored` of the session; a value of the wrong type is an error.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.audio import Encoding
from deployments.interfaces import Endpoint, Option, SpeechOptions, Tool
from serve_app.config import Limits
from serve_app.conversation.reply import ReplySettings
from serve_app.errors import ClientError, invalid
from serve_app.live.events import Listening
from serve_app.live.options import (
    Engine,
    Engines,
    check_tool_choice,
    not_in_force,
    noted,
    unsupported,
)

EAGERNESS_MS = {"low": 1000, "medium": 500, "high": 300, "auto": 500}
"""The silence that ends a turn for a client that asks for semantic_vad: it gets server_vad."""

FIXED = {"truncation": "auto"}
"""What is always so, and therefore not ignored when it is asked for."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Pcm(_Shape):
    type: Literal["audio/pcm"]
    rate: Literal[24000] = 24000


class G711(_Shape):
    type: Literal["audio/pcmu", "audio/pcma"]


Format = Annotated[Pcm | G711, Field(discriminator="type")]


class Transcription(_Shape):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class ServerVad(_Shape):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=5000)
    silence_duration_ms: int = Field(500, ge=40, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(None, ge=1, le=3_600_000)


class SemanticVad(_Shape):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def served(self) -> ServerVad:
        return ServerVad(
            type="server_vad",
            silence_duration_ms=EAGERNESS_MS[self.eagerness],
            create_response=self.create_response,
            interrupt_response=self.interrupt_response,
        )


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class Input(_Shape):
    format: Format = Pcm(type="audio/pcm")
    transcription: Transcription | None = None
    noise_reduction: dict[str, Any] | None = None
    turn_detection: TurnDetection | None = ServerVad(type="server_vad")

    def in_force(self, transcriber: Engine) -> "Input":
        """Without what nothing here does."""
        update: dict[str, Any] = {"noise_reduction": None, "turn_detection": self.detection}
        if self.transcription:
            language = self.transcription.language
            spoken = {"language": language if transcriber.takes(language) else None, "prompt": None}
            update["transcription"] = self.transcription.model_copy(update=spoken)
        return self.model_copy(update=update)

    @property
    def detection(self) -> ServerVad | None:
        if isinstance(self.turn_detection, SemanticVad):
            return self.turn_detection.served()
        if self.turn_detection:
            return self.turn_detection.model_copy(update={"idle_timeout_ms": None})
        return None


class VoiceId(_Shape):
    id: str


class Output(_Shape):
    format: Format = Pcm(type="audio/pcm")
    voice: str | VoiceId | None = None
    speed: float = Field(1.0, ge=0.25, le=2.0)

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class AudioSettings(_Shape):
    input: Input = Input()
    output: Output = Output()


class Function(_Shape):
    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64)
    description: str = ""
    parameters: dict[str, Any] = {}


class ToolChoice(_Shape):
    type: Literal["function"]
    name: str


Choice = Literal["none", "auto", "required"] | ToolChoice
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
MaxTokens = Annotated[int, Field(ge=1, le=100_000)] | Literal["inf"]


class RealtimeSession(_Shape):
    """What a `session.update` merges into."""

    type: Literal["realtime", "transcription"] = "realtime"
    model: str | None = None
    output_modalities: Modalities = ["audio"]
    instructions: str = ""
    tools: list[Function] = []
    tool_choice: Choice = "auto"
    max_output_tokens: MaxTokens = "inf"
    audio: AudioSettings = AudioSettings()
    include: list[str] | None = None
    ignored: list[str] = []
    """What of the newest update is not in force."""

    def merged(self, update: dict[str, Any], engines: Engines) -> "RealtimeSession":
        """With what `update` says; what it leaves out stays. Raises `ClientError`."""
        known = self.model_dump()
        asked: RealtimeSession = _validated(RealtimeSession, _merge(known, update), "session")
        session = asked.in_force(engines)
        ignored = not_in_force(_without_eagerness(update), FIXED | session.model_dump())
        ignored += _unfollowed(update.get("instructions"), engines.chat)
        return session.model_copy(update={"ignored": ignored})

    def in_force(self, engines: Engines) -> "RealtimeSession":
        """Without what the engines do not do. Raises `ClientError` for a call of a tool that a
        reply must have, which the engine cannot make."""
        chat, input_ = engines.chat, self.audio.input.in_force(engines.transcriber)
        update: dict[str, Any] = {"include": None}
        update["audio"] = self.audio.model_copy(update={"input": input_})
        check_tool_choice(choice(self.tool_choice), [tool.name for tool in self.tools], chat)
        if Option.TOOLS not in chat.options:
            update["tools"] = []
        if Option.MAX_TOKENS not in chat.options:
            update["max_output_tokens"] = "inf"
        if self.audio.output.speed != 1 and Option.SPEED not in engines.speaker.options:
            raise unsupported("audio.output.speed", engines.speaker)
        return self.model_copy(update=update)

    def settings(self, base: ReplySettings, voice: str, limits: Limits) -> ReplySettings:
        """How replies are to be, over what `base` says where a client may not."""
        detection = self.audio.input.detection
        return ReplySettings(
            instructions=_within(self.instructions, limits),
            voice=voice,
            speed=self.audio.output.speed,
            audio=self.output_modalities == ["audio"],
            reply=self.type == "realtime" and detection is not None and detection.create_response,
            hands_free=detection is not None,
            interruptible=detection is None or detection.interrupt_response,
            tools=tools(self.tools, limits),
            tool_choice=choice(self.tool_choice),
            max_tokens=None if self.max_output_tokens == "inf" else self.max_output_tokens,
            preemptive_generation=base.preemptive_generation,
            resume_false_interruption=base.resume_false_interruption and self.type == "realtime",
            max_history_tokens=base.max_history_tokens,
        )

    def listening(self, base: Listening) -> Listening:
        endpoint, detection = base.endpoint, self.audio.input.detection
        if detection is None:
            return Listening(endpoint, base.prefix_padding_ms, manual=True)
        paused = _paused(endpoint, detection.silence_duration_ms)
        aggressiveness = min(3, int(detection.threshold * 4))
        return Listening(
            paused._replace(aggressiveness=aggressiveness), detection.prefix_padding_ms
        )

    def options(self) -> SpeechOptions:
        transcription = self.audio.input.transcription
        return SpeechOptions(language=(transcription and transcription.language) or None)

    def shown(self, id_: str, model: str, voice: str, expires_at: int) -> dict[str, Any]:
        """As the server's events hold it."""
        input_ = self.audio.input.model_dump()
        if self.type == "transcription":
            return {
                "object": "realtime.transcription_session",
                "type": "transcription",
                "id": id_,
                "expires_at": expires_at,
                "audio": {"input": input_},
                "include": self.include,
                **noted(self.ignored),
            }
        output = self.audio.output.model_dump() | {"voice": self.audio.output.voice_name or voice}
        return {
            "object": "realtime.session",
            "type": "realtime",
            "id": id_,
            "model": self.model or model,
            "expires_at": expires_at,
            "output_modalities": self.output_modalities,
            "instructions": self.instructions,
            "tools": [tool.model_dump() for tool in self.tools],
            "tool_choice": self.model_dump()["tool_choice"],
            "max_output_tokens": self.max_output_tokens,
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "audio": {"input": input_, "output": output},
            "include": self.include,
            **noted(self.ignored),
        }


class ReplyShape(_Shape):
    """The `response` of a `response.create`."""

    conversation: str = "auto"
    instructions: str | None = None
    metadata: dict[str, Any] | None = None
    output_modalities: Modalities | None = None
    tools: list[Function] | None = None
    tool_choice: Choice | None = None
    max_output_tokens: MaxTokens | None = None
    audio: AudioSettings | None = None
    input: list[dict[str, Any]] | None = None

    ignored: list[str] = []

    @classmethod
    def of(cls, response: Any) -> "ReplyShape":
        shape: ReplyShape = _validated(cls, response or {}, "response")
        ignored = not_in_force(response or {}, shape.model_dump())
        return shape.model_copy(update={"ignored": ignored})

    def over(self, session: RealtimeSession, engines: Engines) -> RealtimeSession:
        """The session as this one reply has it. Raises `ClientError`."""
        asked = self._over(session)
        used = asked.in_force(engines)
        ignored = [*self.ignored, *_unfollowed(self.instructions, engines.chat)]
        ignored += ["tools"] if self.tools and not used.tools else []
        return used.model_copy(update={"ignored": ignored})

    def _over(self, session: RealtimeSession) -> RealtimeSession:
        names = ("instructions", "output_modalities", "tools", "tool_choice", "max_output_tokens")
        update = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.audio and self.audio.output.voice:
            output = session.audio.output.model_copy(update={"voice": self.audio.output.voice})
            update["audio"] = session.audio.model_copy(update={"output": output})
        return session.model_copy(update=update)


def encoding(format_: Format) -> tuple[int, Encoding]:
    """Rate in Hz and sample format."""
    if isinstance(format_, Pcm):
        return format_.rate, "pcm_s16le"
    return 8000, "mulaw" if format_.type == "audio/pcmu" else "alaw"


def tools(functions: list[Function], limits: Limits) -> tuple[Tool, ...]:
    if len(functions) > limits.max_tools:
        raise ClientError("too_many_items", f"at most {limits.max_tools} tools are allowed")
    return tuple(
        Tool(function.name, function.description, json.dumps(function.parameters))
        for function in functions
    )


def choice(choice_: Choice) -> str:
    return choice_ if isinstance(choice_, str) else choice_.name


def _paused(endpoint: Endpoint, silence_ms: int) -> Endpoint:
    """A pause must come before the end."""
    pause_ms = min(endpoint.pause_ms, silence_ms - 20)
    return endpoint._replace(min_silence_ms=silence_ms, pause_ms=pause_ms)


def _within(text: str, limits: Limits) -> str:
    if len(text) > limits.max_item_chars:
        raise ClientError(
            "text_too_long", f"instructions have at most {limits.max_item_chars} characters"
        )
    return text


def _merge(known: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Objects of audio are merged key by key, anything else is replaced."""
    merged = dict(known)
    for key, value in update.items():
        deep = key in ("audio", "input", "output") and isinstance(value, dict)
        merged[key] = _merge(known.get(key) or {}, value) if deep else value
    return {key: value for key, value in merged.items() if key in _KEPT_NULL or value is not None}


_KEPT_NULL = frozenset({"turn_detection", "transcription", "noise_reduction"})
"""`null` turns these off; elsewhere it stands for the default."""


def _unfollowed(instructions: str | None, chat: Engine) -> list[str]:
    return ["instructions"] if instructions and Option.INSTRUCTIONS not in chat.options else []


def _without_eagerness(update: dict[str, Any]) -> dict[str, Any]:
    """It is used, though not as such: it says how long the silence is."""
    match update:
        case {"audio": {"input": {"turn_detection": {"type": "semantic_vad"} as detection}}}:
            plain = {key: value for key, value in detection.items() if key != "eagerness"}
            input_ = update["audio"]["input"] | {"turn_detection": plain}
            return update | {"audio": update["audio"] | {"input": input_}}
    return update


def _validated(shape: Any, value: Any, where: str) -> Any:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise invalid(error, value, "invalid_value", where) from error
