"""The configuration: one frozen tree, filled once from `args` in serve_config.yaml.

Every field says its unit and purpose in its description; docs/configuration.md is generated from
here. A profile is a set of default engines; a setting in the file overrides it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from serve_app.config.admission import AdmissionConfig
from serve_app.config.auth import Auth, AuthConfig
from serve_app.config.browser import BrowserConfig
from serve_app.config.drain import CLOSE_TIMEOUT_S, DrainConfig
from serve_app.config.engines import (
    ChatConfig,
    ConversationConfig,
    DiarizerConfig,
    EngineConfig,
    IngressConfig,
    SpeakerConfig,
    TcpConfig,
    TranscriberConfig,
    VadConfig,
)
from serve_app.config.jobs import JobsConfig, StorageConfig
from serve_app.config.limits import Limits
from serve_app.config.logs import LoggingConfig
from serve_app.config.model import ConfigModel
from serve_app.config.network import NetworkConfig, TlsConfig
from serve_app.config.resume import ResumeConfig
from serve_app.config.tenants import TenantConfig, TenantName
from serve_app.config.uploads import UploadsConfig
from serve_app.config.voices import VOICES
from serve_app.config.weighted import (
    GpuConfig,
    HasWeights,
    ModelsConfig,
)

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


EMBEDDED_CPU = {"pocketsphinx": 0.3}
SESSION_CPU = 0.003
"""Processors that a session takes: with an engine on the same processors, and without."""


class WorkerConfig(NamedTuple):
    """What a worker needs of the tree."""

    storage: StorageConfig
    jobs: JobsConfig
    transcriber: TranscriberConfig
    transcriber_engine: str
    diarizer: DiarizerConfig
    diarizer_engine: str
    max_session_s: float
    history_s: float
    audit_file: Path
    tenants: Mapping[str, TenantConfig]


class Config(ConfigModel):
    """The root of the tree."""

    profile: Literal["cpu", "gpu", "sim"] = Field(
        "cpu",
        description="`cpu`: engines from pip wheels; `gpu`: Voxtral, an LLM and Kokoro; "
        "`sim`: simulated engines.",
    )
    models: ModelsConfig = ModelsConfig()
    gpu: GpuConfig = GpuConfig()
    logging: LoggingConfig = LoggingConfig()
    tls: TlsConfig = TlsConfig()
    network: NetworkConfig = NetworkConfig()
    limits: Limits = Limits()
    browser: BrowserConfig = BrowserConfig()
    drain: DrainConfig = DrainConfig()
    resume: ResumeConfig = ResumeConfig()
    auth: Auth = AuthConfig()
    admission: AdmissionConfig = AdmissionConfig()
    ingress: IngressConfig = IngressConfig()
    vad: VadConfig = VadConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    chat: ChatConfig = ChatConfig()
    speaker: SpeakerConfig = SpeakerConfig()
    conversation: ConversationConfig = ConversationConfig()
    tcp: TcpConfig = TcpConfig()
    diarizer: DiarizerConfig = DiarizerConfig()
    storage: StorageConfig = StorageConfig()
    uploads: UploadsConfig = UploadsConfig()
    jobs: JobsConfig = JobsConfig()
    tenants: dict[TenantName, TenantConfig] = Field(
        {},
        description="Tenants by name; `default` is for those that are not named. `voxray tenants` "
        "overrides it while the server runs. See [tenants.md](tenants.md).",
    )

    @property
    def transcriber_engine(self) -> str:
        """The configured engine, or else the profile's."""
        return self._engine("transcriber", self.transcriber)

    @property
    def max_session_s(self) -> float:
        """The longest that any socket may stay open; HAProxy must not be stopped sooner."""
        return max(self.limits.max_session_s, self.conversation.max_session_s)

    @property
    def longest_drain_s(self) -> float:
        """From the begin of an ingress replica's drain until its last socket is closed."""
        return self.drain.timeout_s + self.limits.closing_timeout_s + CLOSE_TIMEOUT_S

    @property
    def session_cpu(self) -> float:
        """Processors that a session is assumed to take."""
        usual = EMBEDDED_CPU.get(self.transcriber_engine, SESSION_CPU)
        return self.admission.session_cpu or usual

    @property
    def chat_engine(self) -> str:
        return self._engine("chat", self.chat)

    @property
    def speaker_engine(self) -> str:
        return self._engine("speaker", self.speaker)

    @property
    def diarizer_engine(self) -> str:
        return self._engine("diarizer", self.diarizer)

    @property
    def engines(self) -> dict[str, tuple[str, EngineConfig]]:
        """The name of each kind's engine, and the section that configures it."""
        return {
            "transcriber": (self.transcriber_engine, self.transcriber),
            "chat": (self.chat_engine, self.chat),
            "speaker": (self.speaker_engine, self.speaker),
            "diarizer": (self.diarizer_engine, self.diarizer),
        }

    @property
    def audit_file(self) -> Path:
        return Path(self.auth.audit_file or self.storage.folder / "audit.log").expanduser()

    @property
    def worker(self) -> WorkerConfig:
        return WorkerConfig(
            self.storage,
            self.jobs,
            self.transcriber,
            self.transcriber_engine,
            self.diarizer,
            self.diarizer_engine,
            self.max_session_s,
            self.resume.history_s,
            self.audit_file,
            self.tenants,
        )

    @property
    def with_weights(self) -> dict[str, HasWeights]:
        """The engines in use that have weights on disk, by kind."""
        settings = {
            kind: engine_settings(name, leaf) for kind, (name, leaf) in self.engines.items()
        }
        return {kind: leaf for kind, leaf in settings.items() if isinstance(leaf, HasWeights)}

    @property
    def voice(self) -> str:
        """The default voice; "" where only the engine knows it."""
        return self.speaker.voice or VOICES.get(self.speaker_engine, ("", {}))[0]

    @property
    def openai_voices(self) -> dict[str, str]:
        return VOICES.get(self.speaker_engine, ("", {}))[1] | self.speaker.openai_voices

    def _engine(self, kind: str, config: EngineConfig) -> str:
        return config.engine or PROFILES[self.profile][kind]


def engine_settings(engine: str, config: EngineConfig) -> ConfigModel | None:
    """The settings of a built-in engine; None where it has none, or is not built in."""
    leaf = getattr(config, engine.replace("-", "_"), None)
    return leaf if isinstance(leaf, ConfigModel) else None
