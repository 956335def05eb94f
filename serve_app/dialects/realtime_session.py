"""The `session` object of the OpenAI Realtime dialect: merged, checked, and what it means. Pure.

Fields that have no effect are listed in `ignored`, of the session or of the response.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from deployments.interfaces import Endpoint, Option, SpeechOptions, Tool
from serve_app.config import Limits
from serve_app.conversation.reply import ReplySettings
from serve_app.dialects.realtime_shapes import (
    AudioSettings,
    Choice,
    Function,
    MaxTokens,
    Modalities,
    ReplyAudio,
)
from serve_app.errors import ClientError, invalid
from serve_app.live.events import Listening
from serve_app.live.options import (
    EngineInfo,
    Engines,
    check_tool_choice,
    not_in_force,
    noted,
    unsupported,
)

FIXED = {"truncation": "auto"}
"""Values that always apply, and therefore are not ignored when a client sends them."""


class RealtimeSession(BaseModel):
    """The object that a `session.update` is merged into."""

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
    """Fields of the latest update that have no effect."""

    def merged(self, update: dict[str, Any], engines: Engines) -> "RealtimeSession":
        """The session with `update`; fields that it does not have stay. Raises `ClientError`."""
        merged = _merge(self.model_dump(), update)
        requested: RealtimeSession = _validated(RealtimeSession, merged, "session")
        session = requested.in_force(engines)
        ignored = not_in_force(_without_eagerness(update), FIXED | session.model_dump())
        ignored += _unfollowed(update.get("instructions"), engines.chat)
        return session.model_copy(update={"ignored": ignored})

    def in_force(self, engines: Engines) -> "RealtimeSession":
        """Without the options that the engines ignore. Raises `ClientError` for a required tool
        call that the engine cannot make, and for a speed that it does not have."""
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
        """The settings of replies; those that a client cannot change are `base`'s."""
        detection = self.audio.input.detection
        return ReplySettings(
            instructions=_checked_length(self.instructions, limits),
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
        aggressiveness = min(3, int(detection.threshold * 4))
        endpoint = _with_silence(endpoint, detection.silence_duration_ms)
        return Listening(
            endpoint._replace(aggressiveness=aggressiveness), detection.prefix_padding_ms
        )

    def options(self) -> SpeechOptions:
        transcription = self.audio.input.transcription
        return SpeechOptions(language=(transcription and transcription.language) or None)

    def rendered(self, id_: str, model: str, voice: str, expires_at: int) -> dict[str, Any]:
        """The session object of the server's events."""
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


class ReplyShape(BaseModel):
    """The `response` of a `response.create`."""

    conversation: str = "auto"
    instructions: str | None = None
    metadata: dict[str, Any] | None = None
    output_modalities: Modalities | None = None
    tools: list[Function] | None = None
    tool_choice: Choice | None = None
    max_output_tokens: MaxTokens | None = None
    audio: ReplyAudio | None = None
    input: Annotated[list[dict[str, Any]], Field(max_length=1000)] | None = None
    ignored: list[str] = []

    @classmethod
    def of(cls, response: Any) -> "ReplyShape":
        shape: ReplyShape = _validated(cls, response or {}, "response")
        ignored = not_in_force(response or {}, shape.model_dump())
        return shape.model_copy(update={"ignored": ignored})

    def over(self, session: RealtimeSession, engines: Engines) -> RealtimeSession:
        """The session for this one reply. Raises `ClientError`."""
        used = self._over(session).in_force(engines)
        ignored = [*self.ignored, *_unfollowed(self.instructions, engines.chat)]
        ignored += ["tools"] if self.tools and not used.tools else []
        format_ = self.audio and self.audio.output.format
        if format_ not in (None, used.audio.output.format):
            ignored.append("audio.output.format")
        return used.model_copy(update={"ignored": ignored})

    def _over(self, session: RealtimeSession) -> RealtimeSession:
        names = ("instructions", "output_modalities", "tools", "tool_choice", "max_output_tokens")
        update = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.audio:
            output, requested = session.audio.output, self.audio.output
            changes = {
                "voice": requested.voice or output.voice,
                "speed": requested.speed or output.speed,
            }
            output = output.model_copy(update=changes)
            update["audio"] = session.audio.model_copy(update={"output": output})
        return session.model_copy(update=update)


def tools(functions: list[Function], limits: Limits) -> tuple[Tool, ...]:
    if len(functions) > limits.max_tools:
        raise ClientError("too_many_items", f"at most {limits.max_tools} tools are allowed")
    return tuple(
        Tool(function.name, function.description, json.dumps(function.parameters))
        for function in functions
    )


def choice(choice_: Choice) -> str:
    return choice_ if isinstance(choice_, str) else choice_.name


def _with_silence(endpoint: Endpoint, silence_ms: int) -> Endpoint:
    """A pause must be shorter than the silence that ends a turn."""
    pause_ms = min(endpoint.pause_ms, silence_ms - 20)
    return endpoint._replace(min_silence_ms=silence_ms, pause_ms=pause_ms)


def _checked_length(instructions: str, limits: Limits) -> str:
    most = limits.max_item_chars
    if len(instructions) > most:
        reason = f"instructions have {len(instructions)} characters; at most {most} are allowed"
        raise ClientError("text_too_long", reason)
    return instructions


def _merge(session: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Objects of audio are merged key by key, anything else is replaced."""
    merged = dict(session)
    for key, value in update.items():
        deep = key in ("audio", "input", "output") and isinstance(value, dict)
        merged[key] = _merge(session.get(key) or {}, value) if deep else value
    return {key: value for key, value in merged.items() if key in NULLABLE or value is not None}


NULLABLE = frozenset({"turn_detection", "transcription", "noise_reduction"})
"""`null` turns these off; elsewhere it means the default."""


def _unfollowed(instructions: str | None, chat: EngineInfo) -> list[str]:
    return ["instructions"] if instructions and Option.INSTRUCTIONS not in chat.options else []


def _without_eagerness(update: dict[str, Any]) -> dict[str, Any]:
    """It has an effect: it sets the length of the silence."""
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
