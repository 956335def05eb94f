"""The configuration of engines whose weights are not in a wheel: where they are, what they take."""

from typing import Literal

from pydantic import Field

from serve_app.config.model import ConfigModel


class HasWeights(ConfigModel):
    """An engine with weights; `files` are those it reads, of all that a repository holds."""

    model: str

    @property
    def files(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values must have room in memory at once."""
        return 0

    @property
    def at_once(self) -> int:
        """Requests that are worked on in one step."""
        raise NotImplementedError


class OnVllm(HasWeights):
    """What all of vLLM's engines have."""

    stall_s: float = Field(
        10.0,
        gt=0,
        description="Seconds without a sign of life after which the engine is taken for dead.",
    )
    eager: bool = Field(
        False,
        description="No compilation, no CUDA graphs: starts sooner, runs slower; for CPUs.",
    )


MISTRAL_FILES = ("params.json", "tekken.json", "consolidated*.safetensors")
MODEL = "A directory, or a repository of the Hugging Face hub."
FRAMES_PER_SECOND = 12.5


class VoxtralRealtimeConfig(OnVllm):
    """Voxtral Realtime on vLLM: live sessions."""

    model: str = Field("mistralai/Voxtral-Mini-4B-Realtime-2602", description=MODEL)
    delay_ms: int = Field(
        480,
        ge=80,
        le=2400,
        multiple_of=80,
        description="Milliseconds that words are behind their audio; more is more accurate.",
    )
    max_streams: int = Field(
        64, ge=1, description="People who speak at the same moment on one replica; more wait."
    )
    max_request_s: float = Field(
        40.0,
        ge=5,
        description="Seconds of one utterance after which its request is begun anew in a pause.",
    )
    max_model_len: int = Field(2048, ge=256, description="Tokens of a request, 12.5 a second.")

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


class VoxtralConfig(OnVllm):
    """Voxtral on vLLM: recordings, utterances and questions about them."""

    model: str = Field("mistralai/Voxtral-Mini-3B-2507", description=MODEL)
    max_windows: int = Field(32, ge=1, description="Windows of 30 s decoded at once.")
    step_s: float = Field(
        1.0, gt=0, description="Seconds of audio after which a live utterance is decoded anew."
    )
    max_model_len: int = Field(8192, ge=1024, description="Tokens of a request: audio and words.")
    detect_language: bool = Field(
        True, description="Ask the model for the language of an utterance whose client named none."
    )
    max_answer_tokens: int = Field(1024, ge=1, description="Tokens of an answer to a question.")

    @property
    def at_once(self) -> int:
        return self.max_windows

    @property
    def files(self) -> tuple[str, ...]:
        return MISTRAL_FILES

    @property
    def tokens(self) -> int:
        return max(self.max_model_len, self.max_windows * 768)


class VoxtralTransformersConfig(HasWeights):
    """The same model through transformers."""

    model: str = Field("mistralai/Voxtral-Mini-3B-2507", description=MODEL)
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="Where it computes.")
    batch: int = Field(8, ge=1, description="Windows of 30 s decoded at once.")
    step_s: float = Field(
        1.0, gt=0, description="Seconds of audio after which a live utterance is decoded anew."
    )
    detect_language: bool = Field(
        True, description="Ask the model for the language of an utterance whose client named none."
    )
    max_answer_tokens: int = Field(512, ge=1, description="Tokens of an answer to a question.")
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
    max_model_len: int = Field(8192, ge=256, description="Tokens of a conversation.")
    max_requests: int = Field(64, ge=1, description="Replies written at once; more wait.")
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
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="Where it computes.")
    batch: int = Field(16, ge=1, description="Clauses spoken at once.")

    @property
    def at_once(self) -> int:
        return self.batch

    @property
    def files(self) -> tuple[str, ...]:
        return ("config.json", "kokoro-v1_0.pth", "voices/*.pt")


class ModelsConfig(ConfigModel):
    """Weights on disk."""

    directory: str = Field(
        "~/.cache/voxray/models", description="Where `voxray models` puts weights and engines look."
    )
    offline: bool = Field(
        False, description="Fetch nothing at run time: weights that are not there are an error."
    )


class GpuConfig(ConfigModel):
    """What the plan of who runs where is checked against before anything loads."""

    memory_gib: float = Field(
        0.0,
        ge=0,
        description="Memory of one GPU in GiB; 0: checked by each replica on its own GPU.",
    )
    count: int = Field(1, ge=1, description="GPUs of the cluster.")
