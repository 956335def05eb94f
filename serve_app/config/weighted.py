"""The configuration of engines with downloaded weights: where those are, what memory they take."""

from typing import Annotated, Literal

from pydantic import Field

from serve_app.config.model import ConfigModel, Count, Seconds


class HasWeights(ConfigModel):
    """An engine with weights. `files` are the patterns of what it reads from the model's
    repository."""

    model: str

    @property
    def files(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values must fit into memory at once."""
        return 0

    @property
    def at_once(self) -> int:
        """Requests in one step of the model."""
        raise NotImplementedError


class OnVllm(HasWeights):
    """What all engines on vLLM have."""

    stall_s: Seconds = Field(
        10.0, description="Seconds without a heartbeat after which the engine is considered dead."
    )
    eager: bool = Field(
        False,
        description="Without compilation and CUDA graphs: starts sooner, runs slower; for CPUs.",
    )


MISTRAL_FILES = ("params.json", "tekken.json", "consolidated*.safetensors")
MODEL = "A directory, or a repository of the Hugging Face hub."
FRAMES_PER_SECOND = 12.5

Device = Annotated[Literal["auto", "cuda", "mps", "cpu"], Field(description="Where it computes.")]


class VoxtralRealtimeConfig(OnVllm):
    """Voxtral Realtime on vLLM: live sessions."""

    model: str = Field("mistralai/Voxtral-Mini-4B-Realtime-2602", description=MODEL)
    delay_ms: int = Field(
        480,
        ge=80,
        le=2400,
        multiple_of=80,
        description="Milliseconds that words lag behind their audio; more is more accurate.",
    )
    max_streams: Count = Field(
        64, description="People who may speak at the same moment on one replica; more wait."
    )
    max_request_s: float = Field(
        40.0,
        ge=5,
        le=3600,
        description="Seconds of one utterance after which a new request starts at the next pause.",
    )
    max_model_len: int = Field(
        2048, ge=256, le=10_000_000, description="Tokens of a request, 12.5 a second."
    )

    @property
    def at_once(self) -> int:
        return self.max_streams

    @property
    def files(self) -> tuple[str, ...]:
        return MISTRAL_FILES

    @property
    def tokens(self) -> int:
        each = min(self.max_model_len, int(self.max_request_s * 1.5 * FRAMES_PER_SECOND) + 128)
        return self.max_streams * each


class VoxtralSettings(HasWeights):
    """What Voxtral has on vLLM and on transformers."""

    model: str = Field("mistralai/Voxtral-Mini-3B-2507", description=MODEL)
    step_s: Seconds = Field(
        1.0, description="Seconds of new audio after which a live utterance is decoded again."
    )
    detect_language: bool = Field(
        True, description="Ask the model for the language of an utterance whose client named none."
    )
    max_answer_tokens: Count = Field(1024, description="Tokens of an answer to a question.")


class VoxtralConfig(VoxtralSettings, OnVllm):
    """Voxtral on vLLM: recordings, utterances and questions about them."""

    max_windows: Count = Field(32, description="Windows of 30 s decoded at once.")
    max_model_len: int = Field(
        8192, ge=1024, le=10_000_000, description="Tokens of a request: audio and words."
    )

    @property
    def at_once(self) -> int:
        return self.max_windows

    @property
    def files(self) -> tuple[str, ...]:
        return MISTRAL_FILES

    @property
    def tokens(self) -> int:
        return max(self.max_model_len, self.max_windows * 768)


class VoxtralTransformersConfig(VoxtralSettings):
    """The same model on transformers."""

    device: Device = "auto"
    batch: Count = Field(8, description="Windows of 30 s decoded at once.")
    max_answer_tokens: Count = Field(512, description="Tokens of an answer to a question.")
    compile: bool = Field(False, description="Use `torch.compile`: starts later, runs faster.")

    @property
    def at_once(self) -> int:
        return self.batch

    @property
    def files(self) -> tuple[str, ...]:
        return ("*.json", "model*.safetensors")

    @property
    def tokens(self) -> int:
        return self.batch * 768


class VllmChatConfig(OnVllm):
    """An instruct model on vLLM."""

    model: str = Field("Qwen/Qwen3-4B-Instruct-2507", description=MODEL)
    max_model_len: int = Field(8192, ge=256, le=10_000_000, description="Tokens of a conversation.")
    max_requests: Count = Field(64, description="Replies written at once; more wait.")
    tool_parser: str = Field(
        "hermes", description="vLLM's parser of this model's tool calls; empty: no tools."
    )
    reasoning_parser: str = Field(
        "", description="vLLM's parser of this model's reasoning, which is not spoken."
    )

    @property
    def at_once(self) -> int:
        return self.max_requests

    @property
    def files(self) -> tuple[str, ...]:
        return ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")

    @property
    def tokens(self) -> int:
        return max(self.max_model_len, self.max_requests * 1024)


class KokoroConfig(HasWeights):
    """Kokoro-82M, version 1.0."""

    model: str = Field("hexgrad/Kokoro-82M", description=MODEL)
    device: Device = "auto"
    batch: Count = Field(16, description="Clauses spoken at once.")

    @property
    def at_once(self) -> int:
        return self.batch

    @property
    def files(self) -> tuple[str, ...]:
        return ("config.json", "kokoro-v1_0.pth", "voices/*.pt")


class ModelsConfig(ConfigModel):
    """Weights on disk."""

    directory: str = Field(
        "~/.cache/voxray/models",
        description="Where `voxray models` puts weights and engines look for them.",
    )
    offline: bool = Field(
        False, description="Download nothing at run time: missing weights are an error."
    )


class GpuConfig(ConfigModel):
    """The GPUs that the plan is checked against before anything loads."""

    memory_gib: float = Field(
        0.0,
        ge=0,
        le=65_536,
        description="Memory of one GPU in GiB; 0: each replica checks the GPU it runs on.",
    )
    count: int = Field(1, ge=1, le=100_000, description="GPUs of the cluster.")
