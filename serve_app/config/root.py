"""The configuration: one frozen tree, filled once from `args` in serve_config.yaml.

Every field says its unit and purpose in its description; docs/configuration.md is generated from
here. A profile is a set of defaults for engines: whatever is written out wins over it.
"""

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from deployments.interfaces import Endpoint
from serve_app.config.engines import (
    ConfigModel,
    GpuConfig,
    HasWeights,
    KokoroConfig,
    ModelsConfig,
    VllmChatConfig,
    VoxtralConfig,
    VoxtralRealtimeConfig,
    VoxtralTransformersConfig,
)


class Scale(ConfigModel):
    """How many replicas a deployment has, and what one may take of a node."""

    min_replicas: int = Field(1, ge=1, description="Replicas kept at all times.")
    max_replicas: int = Field(4, ge=1, description="Replicas at most.")
    sessions_per_replica: int = Field(
        500,
        ge=1,
        description="Live sessions, or requests at once, that one replica should carry; more "
        "start another.",
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


class Limits(ConfigModel):
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
    max_buffered_audio_s: float = Field(
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
    upload_timeout_s: float = Field(
        600.0, gt=0, description="Seconds a recording's body may take to arrive."
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
    max_conversations: int = Field(
        200, ge=1, description="Conversations on one Ingress replica; more are refused with 503."
    )
    max_requests: int = Field(
        256, ge=1, description="REST calls for speech or chat at once on one Ingress replica."
    )
    max_speech_chars: int = Field(
        4096, ge=1, description="Characters of text in one call for speech."
    )
    max_chat_chars: int = Field(
        400_000, ge=1, description="Characters of all messages in one chat request."
    )
    max_items: int = Field(512, ge=8, description="Items that a conversation's client may create.")
    max_item_chars: int = Field(
        100_000, ge=1, description="Characters of text in one item or in the instructions."
    )
    max_tools: int = Field(128, ge=0, description="Tools of a conversation or a chat request.")
    max_json_bytes: int = Field(4_194_304, ge=1, description="Bytes of a JSON body of a REST call.")
    max_event_bytes: int = Field(
        16_777_216, ge=1, description="Bytes of one event from a conversation's client."
    )


class IngressConfig(ConfigModel):
    """Sockets and REST."""

    scale: Scale = Scale(min_replicas=1, max_replicas=4, sessions_per_replica=1000)


class VadConfig(ConfigModel):
    """Speech start and end."""

    engine: Literal["webrtc"] = Field("webrtc", description="`webrtc`: the WebRTC VAD.")
    aggressiveness: int = Field(
        2, ge=0, le=3, description="0 hears speech most readily, 3 is the strictest."
    )
    min_speech_ms: int = Field(60, ge=20, description="Milliseconds of voice that start speech.")
    min_silence_ms: int = Field(500, ge=20, description="Milliseconds of silence that end speech.")
    prefix_padding_ms: int = Field(
        300, ge=0, description="Milliseconds of audio before speech that its utterance includes."
    )
    batch_interval_ms: float = Field(
        15.0, gt=0, description="Milliseconds between a lane's calls, at least."
    )
    scale: Scale = Scale(sessions_per_replica=1000)

    def endpoint(self) -> Endpoint:
        """Of a live transcription session."""
        return Endpoint(self.aggressiveness, self.min_speech_ms, self.min_silence_ms)


class SimConfig(ConfigModel):
    """The stand-in engine."""

    latency_ms: float = Field(50.0, ge=0, description="Milliseconds from audio to words.")
    words_per_second: float = Field(2.5, gt=0, le=100, description="Words in a second of speech.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of utterances that fail.")
    seed: int = Field(0, ge=0, description="The same seed and audio give the same words.")


class PocketSphinxConfig(ConfigModel):
    """The embedded engine."""

    decoders: int = Field(
        8, ge=1, description="Decoder processes of a replica at most: utterances decoded at once."
    )
    batch_decoders: int = Field(
        2, ge=1, description="More of them for recordings; they give way to live speech."
    )


class TranscriberConfig(ConfigModel):
    """Words of speech."""

    engine: str = Field(
        "",
        description="`pocketsphinx`, `voxtral-realtime`, `voxtral`, `voxtral-transformers`, "
        "`sim`, or `module:Class` of your own; empty: the profile's.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    batch_interval_ms: float = Field(
        40.0, gt=0, description="Milliseconds between a lane's calls, at least."
    )
    sim: SimConfig = SimConfig()
    pocketsphinx: PocketSphinxConfig = PocketSphinxConfig()
    voxtral_realtime: VoxtralRealtimeConfig = VoxtralRealtimeConfig()
    voxtral: VoxtralConfig = VoxtralConfig()
    voxtral_transformers: VoxtralTransformersConfig = VoxtralTransformersConfig()
    scale: Scale = Scale(sessions_per_replica=1000)


class ChatSimConfig(ConfigModel):
    """The stand-in engine."""

    first_token_ms: float = Field(50.0, ge=0, description="Milliseconds to the first token.")
    token_ms: float = Field(10.0, ge=0, description="Milliseconds from token to token.")
    tokens: int = Field(26, ge=1, description="Tokens of a reply, a word each.")


class OpenAIConfig(ConfigModel):
    """Any OpenAI-compatible chat server."""

    base_url: str = Field("http://127.0.0.1:11434/v1", description="Where its API begins.")
    model: str = Field("", description="The model's name there; must be set.")
    api_key_variable: str = Field(
        "OPENAI_API_KEY", description="The environment variable that holds its key."
    )
    timeout_s: float = Field(30.0, gt=0, description="Seconds without a token before giving up.")
    connect_timeout_s: float = Field(3.0, gt=0, description="Seconds for connecting.")
    retries: int = Field(2, ge=0, description="Tries more, with backoff, before the first token.")
    breaker_failures: int = Field(
        5, ge=1, description="Failures in a row after which requests fail at once for a while."
    )
    breaker_open_s: float = Field(10.0, gt=0, description="Seconds of that while.")


class ChatConfig(ConfigModel):
    """Replies."""

    engine: str = Field(
        "",
        description="`eliza`, `vllm`, `openai`, `sim`, or `module:Class`; empty: the profile's.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    batch_interval_ms: float = Field(
        5.0, gt=0, description="Milliseconds between a lane's calls, at least."
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds to the next piece of a reply.")
    sim: ChatSimConfig = ChatSimConfig()
    openai: OpenAIConfig = OpenAIConfig()
    vllm: VllmChatConfig = VllmChatConfig()
    scale: Scale = Scale(sessions_per_replica=100)


class SpeakerSimConfig(ConfigModel):
    """The stand-in engine."""

    first_audio_ms: float = Field(150.0, ge=0, description="Milliseconds to the first audio.")
    words_per_second: float = Field(2.5, gt=0, description="Words in a second of speech.")
    realtime_factor: float = Field(
        10.0, gt=0, description="How much faster than played speech is made."
    )


OPENAI_VOICES = {
    "alloy": "en-us+f3",
    "ash": "en-us+m3",
    "ballad": "en-gb+m3",
    "cedar": "en-us",
    "coral": "en-us+f2",
    "echo": "en-us",
    "fable": "en-gb",
    "marin": "en-us+f3",
    "nova": "en-us+f2",
    "onyx": "en-us+m3",
    "sage": "en-gb+f3",
    "shimmer": "en-gb+f2",
    "verse": "en-gb",
}
"""Names that OpenAI's clients ask for, as voices of espeak."""


KOKORO_VOICES = {
    "alloy": "af_alloy",
    "ash": "am_michael",
    "ballad": "bm_fable",
    "cedar": "am_fenrir",
    "coral": "af_bella",
    "echo": "am_echo",
    "fable": "bm_fable",
    "marin": "af_heart",
    "nova": "af_nova",
    "onyx": "am_onyx",
    "sage": "bf_emma",
    "shimmer": "af_sky",
    "verse": "am_puck",
}
"""The same as voices of Kokoro."""


class SpeakerConfig(ConfigModel):
    """Text to speech."""

    engine: str = Field(
        "",
        description="`espeak`, `kokoro`, `sim`, or `module:Class` of your own; empty: the "
        "profile's.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    voice: str = Field("", description="The voice where none is asked for; empty: the profile's.")
    openai_voices: dict[str, str] = Field(
        default_factory=dict,
        description="Further names for voices, as `alloy: en-us+f3`; over the profile's own.",
    )
    styles: dict[str, str] = Field(
        default_factory=dict,
        description="Voices for emotions that a client may hint at, as `cheerful: af_bella`.",
    )
    batch_interval_ms: float = Field(
        5.0, gt=0, description="Milliseconds between a lane's calls, at least."
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds to the next piece of speech.")
    sim: SpeakerSimConfig = SpeakerSimConfig()
    kokoro: KokoroConfig = KokoroConfig()
    scale: Scale = Scale(sessions_per_replica=100)


class BicConfig(ConfigModel):
    """The embedded diarizer."""

    separation: float = Field(
        3.3,
        gt=0,
        description="What two voices must differ by to be two: higher finds fewer speakers.",
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
    """The stand-in: speakers take turns by the clock."""

    turn_s: float = Field(5.0, gt=0, description="Seconds of a turn.")
    speakers: int = Field(2, ge=1, description="Speakers that take turns.")


class ConversationConfig(ConfigModel):
    """Spoken turns."""

    instructions: str = Field(
        "You are a friendly assistant in a spoken conversation. Answer briefly, in plain words.",
        description="The system prompt where a session brings none.",
    )
    min_speech_ms: int = Field(60, ge=20, description="Milliseconds of voice that start speech.")
    min_silence_ms: int = Field(500, ge=20, description="Milliseconds of silence that end a turn.")
    prefix_padding_ms: int = Field(
        300, ge=0, description="Milliseconds before speech that belong to it."
    )
    pause_ms: int = Field(
        160,
        ge=0,
        description="Milliseconds of silence after which the final is asked for ahead of the "
        "turn's end; 0 asks at the end.",
    )
    min_interruption_ms: int = Field(
        140, ge=0, description="Milliseconds of voice that stop a reply: a cough does not."
    )
    preemptive_generation: bool = Field(
        True, description="Start the reply at the pause; thrown away if the person goes on."
    )
    resume_false_interruption: bool = Field(
        True, description="Say the rest of a reply when what stopped it held no words."
    )
    max_history_tokens: int = Field(
        3000, ge=100, description="Tokens of history given to the model; older is summarised."
    )
    max_utterance_s: float = Field(
        60.0, gt=0, le=100, description="Seconds of speech after which a turn is cut."
    )
    max_session_s: float = Field(3600.0, gt=0, description="Seconds a conversation may last.")
    idle_timeout_s: float = Field(
        900.0, gt=0, description="Seconds without any message after which a conversation ends."
    )


class TcpConfig(ConfigModel):
    """The TCP port of length-prefixed JSON."""

    port: int = Field(0, ge=0, le=65535, description="8766, say; 0: off.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    read_timeout_s: float = Field(30.0, gt=0, description="Seconds for one message to arrive.")
    max_connections: int = Field(100, ge=1, description="Connections of one Ingress replica.")


class DiarizerConfig(ConfigModel):
    """Who spoke when, in recordings."""

    engine: str = Field(
        "",
        description="`bic`, `pyannote`, `sim`, or `module:Class`; empty: the profile's.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for an engine of your own."
    )
    batch_interval_ms: float = Field(
        20.0, gt=0, description="Milliseconds between a lane's calls, at least."
    )
    timeout_s: float = Field(600.0, gt=0, description="Seconds to the next sign of progress.")
    bic: BicConfig = BicConfig()
    pyannote: PyannoteConfig = PyannoteConfig()
    sim: DiarizerSimConfig = DiarizerSimConfig()
    scale: Scale = Scale(sessions_per_replica=4)


class StorageConfig(ConfigModel):
    """Where recordings and their results are kept."""

    directory: str = Field(
        "", description="Of the default database and objects; empty: `~/.local/share/voxray`."
    )
    database_variable: str = Field(
        "VOXRAY_DATABASE_URL",
        description="The environment variable with the URL of a PostgreSQL database, as "
        "`postgresql+asyncpg://user:password@host/voxray`; unset: SQLite in `directory`.",
    )
    objects: str = Field(
        "",
        description="`s3://bucket/prefix`, `gs://bucket/prefix` or a folder; empty: in "
        "`directory`. Credentials come from the environment, under AWS's and Google's names.",
    )
    encrypt: bool = Field(False, description="Seal audio and results with AES-256-GCM.")
    key_variable: str = Field(
        "VOXRAY_STORAGE_KEY",
        description="The environment variable with the key, 32 bytes in base64.",
    )
    key_file: str = Field("", description="A file with that key, instead.")

    @property
    def folder(self) -> Path:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(self.directory or f"{home}/voxray").expanduser().absolute()

    @property
    def database_url(self) -> str:
        lite = f"sqlite+aiosqlite:///{self.folder / 'voxray.db'}"
        return os.environ.get(self.database_variable) or lite

    @property
    def objects_url(self) -> str:
        return self.objects or str(self.folder / "objects")


class WebhookConfig(ConfigModel):
    """Calls to whoever waits for a job."""

    secret_variable: str = Field(
        "VOXRAY_WEBHOOK_SECRET",
        description="The environment variable with the signing secret, `whsec_` and base64.",
    )
    timeout_s: float = Field(10.0, gt=0, description="Seconds for one call.")
    max_attempts: int = Field(8, ge=1, description="Calls at most; then the webhook is dead.")
    retry_backoff_s: float = Field(
        5.0, gt=0, description="Seconds to the second try; doubled each time."
    )
    allow_private: bool = Field(
        False, description="Webhooks may lead to loopback and private addresses."
    )


class JobsConfig(ConfigModel):
    """Recordings that are transcribed in the background."""

    max_upload_bytes: int = Field(
        524_288_000, ge=1, description="Bytes of a recording sent to POST /v1/jobs."
    )
    max_uploads: int = Field(16, ge=1, description="Uploads at once on one Ingress replica.")
    upload_timeout_s: float = Field(3600.0, gt=0, description="Seconds an upload may take.")
    max_audio_s: float = Field(43_200.0, gt=0, description="Seconds of audio in one recording.")
    decode_timeout_s: float = Field(
        600.0, gt=0, description="Seconds of processor time for decoding a recording once."
    )
    max_waiting: int = Field(1000, ge=1, description="Jobs of one tenant that may wait.")
    max_watchers: int = Field(256, ge=1, description="Event streams of one Ingress replica.")
    windows_at_once: int = Field(
        2, ge=1, description="Windows of a job at work on each Transcriber replica."
    )
    window_timeout_s: float = Field(600.0, gt=0, description="Seconds for one window.")
    lease_s: float = Field(
        15.0, gt=0.5, description="Seconds after which a silent worker's job is another's."
    )
    poll_s: float = Field(0.5, gt=0, description="Seconds between looks at the queue.")
    max_attempts: int = Field(6, ge=1, description="Tries of a job for failures that may pass.")
    retry_backoff_s: float = Field(
        2.0, gt=0, description="Seconds to the second try; doubled each time."
    )
    retention_s: float = Field(
        2_592_000.0, gt=0, description="Seconds after its end when a job and its files are deleted."
    )
    cache_entries: int = Field(
        1000,
        ge=0,
        description="Results that a tenant's same audio is answered with; 0: off.",
    )
    webhook: WebhookConfig = WebhookConfig()
    scale: Scale = Scale(sessions_per_replica=2, downscale_delay_s=60.0)


PROFILES: dict[str, dict[str, str]] = {
    "cpu": {
        "transcriber": "pocketsphinx",
        "chat": "eliza",
        "speaker": "espeak",
        "diarizer": "bic",
    },
    "gpu": {
        "transcriber": "voxtral-realtime",
        "chat": "vllm",
        "speaker": "kokoro",
        "diarizer": "bic",
    },
    "sim": {
        "transcriber": "sim",
        "chat": "sim",
        "speaker": "sim",
        "diarizer": "sim",
    },
}

VOICES: dict[str, tuple[str, dict[str, str]]] = {
    "espeak": ("en-us+f3", OPENAI_VOICES),
    "kokoro": ("af_heart", KOKORO_VOICES),
    "sim": ("sim-low", dict.fromkeys(OPENAI_VOICES, "sim-low")),
}
"""Each known engine's own voice, and what OpenAI's names stand for."""


class Config(ConfigModel):
    """All of it."""

    profile: Literal["cpu", "gpu", "sim"] = Field(
        "cpu",
        description="`cpu`: real engines out of pip wheels; `gpu`: Voxtral, an LLM and Kokoro; "
        "`sim`: stand-ins with a timing.",
    )
    models: ModelsConfig = ModelsConfig()
    gpu: GpuConfig = GpuConfig()
    limits: Limits = Limits()
    ingress: IngressConfig = IngressConfig()
    vad: VadConfig = VadConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    chat: ChatConfig = ChatConfig()
    speaker: SpeakerConfig = SpeakerConfig()
    conversation: ConversationConfig = ConversationConfig()
    tcp: TcpConfig = TcpConfig()
    diarizer: DiarizerConfig = DiarizerConfig()
    storage: StorageConfig = StorageConfig()
    jobs: JobsConfig = JobsConfig()

    @property
    def transcriber_engine(self) -> str:
        """The name of the engine, the profile's where none is written out."""
        return self.transcriber.engine or PROFILES[self.profile]["transcriber"]

    @property
    def max_session_s(self) -> float:
        """Of any socket: HAProxy must not be stopped sooner."""
        return max(self.limits.max_session_s, self.conversation.max_session_s)

    @property
    def chat_engine(self) -> str:
        return self.chat.engine or PROFILES[self.profile]["chat"]

    @property
    def speaker_engine(self) -> str:
        return self.speaker.engine or PROFILES[self.profile]["speaker"]

    @property
    def diarizer_engine(self) -> str:
        return self.diarizer.engine or PROFILES[self.profile]["diarizer"]

    @property
    def engines(self) -> "dict[str, tuple[str, EngineLeaf]]":
        """Each kind's engine by name, and the leaf that configures it."""
        return {
            "transcriber": (self.transcriber_engine, self.transcriber),
            "chat": (self.chat_engine, self.chat),
            "speaker": (self.speaker_engine, self.speaker),
            "diarizer": (self.diarizer_engine, self.diarizer),
        }

    @property
    def with_weights(self) -> dict[str, HasWeights]:
        """The engines in use that have weights on disk, by kind."""
        own = {kind: engine_settings(name, leaf) for kind, (name, leaf) in self.engines.items()}
        return {kind: leaf for kind, leaf in own.items() if isinstance(leaf, HasWeights)}

    @property
    def voice(self) -> str:
        """The voice where none is asked for; "" where an engine of one's own has to be asked."""
        return self.speaker.voice or VOICES.get(self.speaker_engine, ("", {}))[0]

    @property
    def openai_voices(self) -> dict[str, str]:
        return VOICES.get(self.speaker_engine, ("", {}))[1] | self.speaker.openai_voices


EngineLeaf = TranscriberConfig | ChatConfig | SpeakerConfig | DiarizerConfig


def engine_settings(engine: str, config: EngineLeaf) -> ConfigModel | None:
    """The arguments of an engine of ours; None for one that has none, or is not ours."""
    leaf = getattr(config, engine.replace("-", "_"), None)
    return leaf if isinstance(leaf, ConfigModel) else None
