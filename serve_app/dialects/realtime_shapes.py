"""The parts of the `session` object of the OpenAI Realtime dialect. Pure.

Shapes as in the OpenAI API reference, "Realtime" (GA). Unknown fields are accepted (pydantic's
default), because clients send more than any server uses; a value of the wrong type is an error.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from deployments.audio import Encoding
from serve_app.live.options import EngineInfo

EAGERNESS_MS = {"low": 1000, "medium": 500, "high": 300, "auto": 500}
"""The silence that ends a turn for a client that requests semantic_vad; it gets server_vad."""


class Pcm(BaseModel):
    type: Literal["audio/pcm"]
    rate: Literal[24000] = 24000


class G711(BaseModel):
    type: Literal["audio/pcmu", "audio/pcma"]


Format = Annotated[Pcm | G711, Field(discriminator="type")]


class Transcription(BaseModel):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class ServerVad(BaseModel):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=5000)
    silence_duration_ms: int = Field(500, ge=40, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(None, ge=1, le=3_600_000)


class SemanticVad(BaseModel):
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


class Input(BaseModel):
    format: Format = Pcm(type="audio/pcm")
    transcription: Transcription | None = None
    noise_reduction: dict[str, Any] | None = None
    turn_detection: TurnDetection | None = ServerVad(type="server_vad")

    def in_force(self, transcriber: EngineInfo) -> "Input":
        """Without the options that have no effect."""
        update: dict[str, Any] = {"noise_reduction": None, "turn_detection": self.detection}
        if self.transcription:
            language = self.transcription.language
            used = {"language": language if transcriber.takes(language) else None, "prompt": None}
            update["transcription"] = self.transcription.model_copy(update=used)
        return self.model_copy(update=update)

    @property
    def detection(self) -> ServerVad | None:
        if isinstance(self.turn_detection, SemanticVad):
            return self.turn_detection.served()
        if self.turn_detection:
            return self.turn_detection.model_copy(update={"idle_timeout_ms": None})
        return None


class VoiceId(BaseModel):
    id: str


class Output(BaseModel):
    format: Format = Pcm(type="audio/pcm")
    voice: str | VoiceId | None = None
    speed: float = Field(1.0, ge=0.25, le=2.0)

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class ReplyOutput(BaseModel):
    """As `Output`; None: the session's."""

    format: Format | None = None
    voice: str | VoiceId | None = None
    speed: float | None = Field(None, ge=0.25, le=2.0)


class ReplyAudio(BaseModel):
    output: ReplyOutput = ReplyOutput()


class AudioSettings(BaseModel):
    input: Input = Input()
    output: Output = Output()


class Function(BaseModel):
    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64)
    description: str = ""
    parameters: dict[str, Any] = {}


class ToolChoice(BaseModel):
    type: Literal["function"]
    name: str


Choice = Literal["none", "auto", "required"] | ToolChoice
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
MaxTokens = Annotated[int, Field(ge=1, le=100_000)] | Literal["inf"]


def encoding(format_: Format) -> tuple[int, Encoding]:
    """The rate in Hz and the sample encoding."""
    if isinstance(format_, Pcm):
        return format_.rate, "pcm_s16le"
    return 8000, "mulaw" if format_.type == "audio/pcmu" else "alaw"
