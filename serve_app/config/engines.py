"""The configuration of the deployments and of the engines that need no weights."""

from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.interfaces import Endpoint
from serve_app.config.limits import Scale, SessionSeconds
from serve_app.config.model import ConfigModel, Count, Milliseconds, Seconds, SpeechMs
from serve_app.config.weighted import (
    KokoroConfig,
    VllmChatConfig,
    VoxtralConfig,
    VoxtralRealtimeConfig,
    VoxtralTransformersConfig,
)

BatchInterval = Annotated[
    float,
    Field(gt=0, le=10_000, description="Milliseconds between two batches of a lane, at least."),
]
PrefixMs = Annotated[int, Field(ge=0, le=10_000)]


class EngineConfig(ConfigModel):
    """What every kind of engine has; each kind says which engines there are."""

    engine: str
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    batch_interval_ms: BatchInterval = 5.0
    scale: Scale = Scale()


class IngressConfig(ConfigModel):
    """Sockets and REST."""

    scale: Scale = Scale(min_replicas=1, max_replicas=4, sessions_per_replica=1000)


class VadConfig(ConfigModel):
    """Speech start and end."""

    engine: Literal["webrtc"] = Field("webrtc", description="`webrtc`: the WebRTC VAD.")
    aggressiveness: int = Field(
        2, ge=0, le=3, description="From 0, which detects speech most readily, to 3, the strictest."
    )
    min_speech_ms: SpeechMs = Field(60, description="Milliseconds of voice that start speech.")
    min_silence_ms: SpeechMs = Field(500, description="Milliseconds of silence that end speech.")
    prefix_padding_ms: PrefixMs = Field(
        300, description="Milliseconds of audio before speech that its utterance includes."
    )
    batch_interval_ms: BatchInterval = 15.0
    scale: Scale = Scale(sessions_per_replica=1000)

    def endpoint(self) -> Endpoint:
        """Of a live transcription session."""
        return Endpoint(self.aggressiveness, self.min_speech_ms, self.min_silence_ms)


class SimConfig(ConfigModel):
    """The simulated engine."""

    latency_ms: Milliseconds = Field(50.0, description="Milliseconds from audio to words.")
    words_per_second: float = Field(2.5, gt=0, le=100, description="Words in a second of speech.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of utterances that fail.")
    seed: int = Field(
        0, ge=0, le=(1 << 63) - 1, description="The same seed and audio give the same words."
    )
    capacity: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="Seconds of audio that one replica recognises in a second; 0: any number.",
    )


class PocketSphinxConfig(ConfigModel):
    """The embedded engine."""

    decoders: int = Field(
        8,
        ge=1,
        le=1024,
        description="Decoder processes of a replica at most: utterances decoded at once.",
    )
    batch_decoders: int = Field(
        2,
        ge=1,
        le=1024,
        description="Further decoder processes for recordings; they give way to live speech.",
    )


class TranscriberConfig(EngineConfig):
    """Speech to text."""

    engine: str = Field(
        "",
        description="`pocketsphinx`, `voxtral-realtime`, `voxtral`, `voxtral-transformers`, "
        "`sim`, or your own `module:Class`; empty: the profile's.",
    )
    batch_interval_ms: BatchInterval = 40.0
    sim: SimConfig = SimConfig()
    pocketsphinx: PocketSphinxConfig = PocketSphinxConfig()
    voxtral_realtime: VoxtralRealtimeConfig = VoxtralRealtimeConfig()
    voxtral: VoxtralConfig = VoxtralConfig()
    voxtral_transformers: VoxtralTransformersConfig = VoxtralTransformersConfig()
    scale: Scale = Scale(sessions_per_replica=1000)


class ChatSimConfig(ConfigModel):
    """The simulated engine."""

    first_token_ms: Milliseconds = Field(50.0, description="Milliseconds to the first token.")
    token_ms: Milliseconds = Field(10.0, description="Milliseconds from token to token.")
    tokens: Count = Field(26, description="Tokens of a reply, a word each.")


class OpenAIConfig(ConfigModel):
    """Any OpenAI-compatible chat server."""

    base_url: str = Field("http://127.0.0.1:11434/v1", description="The base URL of its API.")
    model: str = Field("", description="The model's name there; must be set.")
    api_key_variable: str = Field(
        "OPENAI_API_KEY", description="The environment variable that holds its key."
    )
    timeout_s: Seconds = Field(30.0, description="Seconds without a token before giving up.")
    connect_timeout_s: Seconds = Field(3.0, description="Seconds for connecting.")
    retries: int = Field(
        2, ge=0, le=100, description="Retries, with backoff, before the first token."
    )
    breaker_failures: Count = Field(
        5, description="Failures in a row after which requests fail at once for a while."
    )
    breaker_open_s: Seconds = Field(10.0, description="Seconds during which they fail at once.")


class ChatConfig(EngineConfig):
    """Replies."""

    engine: str = Field(
        "",
        description="`eliza`, `vllm`, `openai`, `sim`, or `module:Class`; empty: the profile's.",
    )
    timeout_s: Seconds = Field(60.0, description="Seconds to the next piece of a reply.")
    sim: ChatSimConfig = ChatSimConfig()
    openai: OpenAIConfig = OpenAIConfig()
    vllm: VllmChatConfig = VllmChatConfig()
    scale: Scale = Scale(sessions_per_replica=100)


class SpeakerSimConfig(ConfigModel):
    """The simulated engine."""

    first_audio_ms: Milliseconds = Field(150.0, description="Milliseconds to the first audio.")
    words_per_second: float = Field(2.5, gt=0, le=100, description="Words in a second of speech.")
    realtime_factor: float = Field(
        10.0, gt=0, le=10_000, description="Speech is made this many times faster than it plays."
    )


class SpeakerConfig(EngineConfig):
    """Text to speech."""

    engine: str = Field(
        "",
        description="`espeak`, `kokoro`, `sim`, or `module:Class` of your own; empty: the "
        "profile's.",
    )
    voice: str = Field("", description="The voice where none is asked for; empty: the profile's.")
    openai_voices: dict[str, str] = Field(
        default_factory=dict,
        description="Further names for voices, such as `alloy: en-us+f3`; they override the "
        "profile's.",
    )
    styles: dict[str, str] = Field(
        default_factory=dict,
        description="Voices for styles that a client may ask for, such as `cheerful: af_bella`.",
    )
    timeout_s: Seconds = Field(60.0, description="Seconds to the next piece of speech.")
    sim: SpeakerSimConfig = SpeakerSimConfig()
    kokoro: KokoroConfig = KokoroConfig()
    scale: Scale = Scale(sessions_per_replica=100)


class BicConfig(ConfigModel):
    """The embedded diarizer."""

    separation: float = Field(
        3.3,
        gt=0,
        le=1000,
        description="How much two voices must differ to be two speakers: higher finds fewer.",
    )


class PyannoteConfig(ConfigModel):
    """pyannote.audio's pipeline."""

    model: str = Field(
        "pyannote/speaker-diarization-community-1",
        description="A folder with the pipeline, or its name on the hub.",
    )
    token_variable: str = Field(
        "HF_TOKEN", description="The environment variable with the hub's token."
    )
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="Where it computes.")


class DiarizerSimConfig(ConfigModel):
    """The simulated engine: speakers take turns by the clock."""

    turn_s: Seconds = Field(5.0, description="Seconds of a turn.")
    speakers: int = Field(2, ge=1, le=1000, description="Speakers that take turns.")


class ConversationConfig(ConfigModel):
    """Spoken turns."""

    instructions: str = Field(
        "You are a friendly assistant in a spoken conversation. Answer briefly, in plain words.",
        description="The system prompt where a session brings none.",
    )
    min_speech_ms: SpeechMs = Field(60, description="Milliseconds of voice that start speech.")
    min_silence_ms: SpeechMs = Field(500, description="Milliseconds of silence that end a turn.")
    prefix_padding_ms: PrefixMs = Field(
        300, description="Milliseconds of audio before speech that its utterance includes."
    )
    pause_ms: int = Field(
        160,
        ge=0,
        le=10_000,
        description="Milliseconds of silence after which the final is asked for ahead of the "
        "turn's end; 0 asks at the end.",
    )
    min_interruption_ms: int = Field(
        140,
        ge=0,
        le=10_000,
        description="Milliseconds of voice that stop a reply; a cough is shorter.",
    )
    preemptive_generation: bool = Field(
        True, description="Start the reply at the pause; it is dropped if the person continues."
    )
    resume_false_interruption: bool = Field(
        True, description="Say the rest of a reply when what interrupted it contained no words."
    )
    max_history_tokens: int = Field(
        3000,
        ge=100,
        le=10_000_000,
        description="Tokens of history given to the model; older messages are summarised.",
    )
    max_utterance_s: float = Field(
        60.0, gt=0, le=100, description="Seconds of speech after which a turn is cut."
    )
    max_session_s: SessionSeconds = Field(
        3600.0, description="Seconds that a conversation may last."
    )
    idle_timeout_s: SessionSeconds = Field(
        900.0, description="Seconds without any message after which a conversation ends."
    )


class TcpConfig(ConfigModel):
    """The TCP port of length-prefixed JSON."""

    port: int = Field(0, ge=0, le=65535, description="For example 8766; 0: off.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    read_timeout_s: Seconds = Field(30.0, description="Seconds for one message to arrive.")
    max_connections: Count = Field(100, description="Connections to one Ingress replica.")


class DiarizerConfig(EngineConfig):
    """Who spoke when, in recordings."""

    engine: str = Field(
        "",
        description="`bic`, `pyannote`, `sim`, or `module:Class`; empty: the profile's.",
    )
    batch_interval_ms: BatchInterval = 20.0
    timeout_s: Seconds = Field(600.0, description="Seconds to the next sign of progress.")
    bic: BicConfig = BicConfig()
    pyannote: PyannoteConfig = PyannoteConfig()
    sim: DiarizerSimConfig = DiarizerSimConfig()
    scale: Scale = Scale(sessions_per_replica=4)
