"""The configuration: one frozen tree, filled once from `args` in serve_config.yaml.

Every field says its unit and purpose in its description; docs/configuration.md is generated from
here. A profile is a set of defaults for engines: whatever is written out wins over it.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(Leaf):
    """How many replicas a deployment has, and what one may take of a node."""

    min_replicas: int = Field(1, ge=1, description="Replicas kept at all times.")
    max_replicas: int = Field(4, ge=1, description="Replicas at most.")
    sessions_per_replica: int = Field(
        500, ge=1, description="Live sessions that one replica should carry; more start another."
    )
    upscale_delay_s: float = Field(5.0, ge=0, description="Seconds of need before scaling up.")
    downscale_delay_s: float = Field(
        300.0, ge=0, description="Seconds without need before scaling down."
    )
    num_cpus: float = Field(0.1, ge=0, description="CPUs that Ray reserves for a replica.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs, or a fraction of one, for a replica.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


class Limits(Leaf):
    """What a client may ask for; every refusal names the limit it met."""

    max_sessions: int = Field(
        1200, ge=1, description="Live sessions on one Ingress replica; more are refused with 503."
    )
    retry_after_s: int = Field(
        5, ge=1, description="Seconds after which a refused client is told to come back."
    )
    max_chunk_bytes: int = Field(
        1_048_576, ge=2, description="Bytes of audio in one message of a live session."
    )
    max_audio_ahead_s: float = Field(
        60.0,
        gt=0,
        description="Seconds of audio that a client may be ahead of what has been recognised.",
    )
    max_utterance_s: float = Field(
        20.0, gt=0, description="Seconds of speech after which an utterance is cut in two."
    )
    max_session_s: float = Field(3600.0, gt=0, description="Seconds a live session may last.")
    max_silence_s: float = Field(
        600.0, gt=0, description="Seconds of audio without speech after which a session ends."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without any message after which a session ends."
    )
    closing_timeout_s: float = Field(
        60.0, gt=0, description="Seconds that a closing session waits for its last finals."
    )
    client_write_timeout_s: float = Field(
        10.0, gt=0, description="Seconds that a client may leave a message unread."
    )
    max_unsent_events: int = Field(
        256, ge=8, description="Finals and notices kept for a client that does not read."
    )
    max_hotwords: int = Field(100, ge=0, description="Hotwords in one session.")
    max_grammar_bytes: int = Field(
        16_384, ge=0, description="Bytes of JSGF grammar in one session."
    )
    max_upload_bytes: int = Field(
        104_857_600, ge=1, description="Bytes of a recording sent to POST /v1/transcribe."
    )
    max_recording_s: float = Field(
        7200.0, gt=0, description="Seconds of audio decoded from one recording."
    )
    max_recordings: int = Field(
        8, ge=1, description="Recordings transcribed at once on one Ingress replica."
    )
    decode_timeout_s: float = Field(
        120.0, gt=0, description="Seconds of processor time for decoding one recording."
    )


class IngressConfig(Leaf):
    """Sockets and REST."""

    scale: Scale = Scale(min_replicas=1, max_replicas=4, sessions_per_replica=1000)


class VadConfig(Leaf):
    """Speech start and end."""

    engine: Literal["webrtc"] = Field("webrtc", description="`webrtc`: the WebRTC VAD.")
    aggressiveness: int = Field(
        2, ge=0, le=3, description="0 hears speech most readily, 3 is the strictest."
    )
    min_speech_ms: int = Field(60, ge=20, description="Milliseconds of voice that start speech.")
    min_silence_ms: int = Field(500, ge=20, description="Milliseconds of silence that end speech.")
    prefix_ms: int = Field(
        300, ge=0, description="Milliseconds of audio before speech that its utterance includes."
    )
    tick_ms: float = Field(15.0, gt=0, description="Milliseconds between a lane's calls, at least.")
    scale: Scale = Scale(sessions_per_replica=1000)


class TwinConfig(Leaf):
    """The stand-in engine."""

    latency_ms: float = Field(50.0, ge=0, description="Milliseconds from audio to words.")
    words_per_second: float = Field(2.5, gt=0, le=100, description="Words in a second of speech.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of utterances that fail.")
    seed: int = Field(0, ge=0, description="The same seed and audio give the same words.")


class PocketSphinxConfig(Leaf):
    """The embedded engine."""

    decoders: int = Field(
        8, ge=1, description="Decoder processes of a replica at most: utterances decoded at once."
    )


class TranscriberConfig(Leaf):
    """Words of speech."""

    engine: str = Field(
        "",
        description="`pocketsphinx`, `twin`, or `module:Class` of your own; empty: the profile's.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    tick_ms: float = Field(40.0, gt=0, description="Milliseconds between a lane's calls, at least.")
    twin: TwinConfig = TwinConfig()
    pocketsphinx: PocketSphinxConfig = PocketSphinxConfig()
    scale: Scale = Scale(sessions_per_replica=1000)


PROFILES: dict[str, dict[str, str]] = {
    "cpu": {"transcriber": "pocketsphinx"},
    "twin": {"transcriber": "twin"},
}


class Config(Leaf):
    """All of it."""

    profile: Literal["cpu", "twin"] = Field(
        "cpu",
        description="`cpu`: real engines out of pip wheels; `twin`: stand-ins with a timing.",
    )
    limits: Limits = Limits()
    ingress: IngressConfig = IngressConfig()
    vad: VadConfig = VadConfig()
    transcriber: TranscriberConfig = TranscriberConfig()

    @property
    def transcriber_engine(self) -> str:
        """The name of the engine, the profile's where none is written out."""
        return self.transcriber.engine or PROFILES[self.profile]["transcriber"]
