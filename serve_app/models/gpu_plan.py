"""Checks the memory that each engine needs against its share of a GPU. Pure.

An engine needs memory for its weights, for the keys and values of all current requests, for the
activations of one step, and for CUDA itself. All sizes are in bytes; weights are bfloat16.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

GIB = 1024**3
USED = 0.95
"""The usable part of a share; the rest is for CUDA contexts and fragmentation."""

BYTES = 2
"""Per number: bfloat16."""

CUDA = GIB // 2
"""A CUDA context with its kernels and graphs."""

STEP = 2048
"""Tokens of one step, whose activations are in memory together: vLLM's default for serving."""


SPOKEN = GIB // 5
"""Activations of a clause of ten seconds in Kokoro's vocoder, float32."""


class Shape(NamedTuple):
    """The numbers of an architecture that determine its memory."""

    layers: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    dim: int = 0
    hidden: int = 0
    vocabulary: int = 0
    window: int = 0
    """Tokens that attention covers; 0: all."""
    encoder_bytes: int = 0
    """Keys and values of a streaming encoder, per stream."""


class Need(NamedTuple):
    """An engine's memory in bytes, by purpose."""

    engine: str
    weights: int
    kv_cache: int
    activations: int
    cuda: int = CUDA

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.cuda

    def __str__(self) -> str:
        parts = (
            f"weights {self.weights / GIB:.1f}",
            f"KV cache {self.kv_cache / GIB:.1f}",
            f"activations {self.activations / GIB:.1f}",
            f"CUDA {self.cuda / GIB:.1f}",
        )
        return f"{self.engine} needs {self.total / GIB:.1f} GiB ({', '.join(parts)})"


class Share(NamedTuple):
    """An engine's replicas, each with a share of a GPU: a fraction, or several whole ones."""

    need: Need
    gpus: float
    replicas: int


class DoesNotFit(Exception):
    """The plan does not fit the GPUs; the text has the numbers."""


def shape(config: Mapping[str, Any]) -> Shape:
    """The shape in params.json (Mistral) or config.json (transformers); zeros for other files."""
    if "n_layers" in config:
        return _mistral(config)
    text = config.get("text_config") or config
    heads = text.get("num_attention_heads", 0)
    dim = text.get("hidden_size", 0)
    return Shape(
        text.get("num_hidden_layers", 0),
        text.get("num_key_value_heads", heads),
        text.get("head_dim") or (dim // heads if heads else 0),
        dim,
        text.get("intermediate_size", 0),
        text.get("vocab_size", 0),
    )


def _mistral(config: Mapping[str, Any]) -> Shape:
    encoder = config.get("multimodal", {}).get("whisper_model_args", {}).get("encoder_args", {})
    encoder_bytes = 0
    if encoder.get("causal"):
        width = encoder["n_heads"] * encoder["head_dim"]
        encoder_bytes = 2 * BYTES * encoder["n_layers"] * width * encoder["sliding_window"]
    return Shape(
        config["n_layers"],
        config["n_kv_heads"],
        config["head_dim"],
        config["dim"],
        config["hidden_dim"],
        config["vocab_size"],
        config.get("sliding_window") or 0,
        encoder_bytes,
    )


def need(engine: str, weights: int, model: Shape, tokens: int, requests: int) -> Need:
    """The memory for `tokens` with keys and values, and `requests` in one step."""
    text = 2 * BYTES * model.layers * model.kv_heads * model.head_dim * tokens
    step = BYTES * STEP * (6 * model.dim + 3 * model.hidden)
    logits = 4 * 2 * requests * model.vocabulary
    activations = step + logits if model.layers else requests * SPOKEN
    return Need(engine, weights, text + requests * model.encoder_bytes, activations)


def memory_share(gpus: float) -> float:
    """vLLM's `gpu_memory_utilization` for each GPU of an engine; 0 without a GPU."""
    return round(min(gpus, 1.0) * USED, 4)


def check(shares: Sequence[Share], gpu_gib: float, count: int) -> None:
    """Raises `DoesNotFit` when an engine does not fit into its share, or the shares do not fit
    onto the GPUs."""
    for share in shares:
        check_one(share.need, share.gpus, gpu_gib)
    _pack(shares, count)


def check_one(need: Need, gpus: float, gpu_gib: float) -> None:
    if gpus > 1 and gpus != int(gpus):
        raise DoesNotFit(
            f"{need.engine}: num_gpus is {gpus:g}; allowed are a fraction up to 1 and whole numbers"
        )
    room = gpus * gpu_gib * USED
    if need.total > room * GIB:
        raise DoesNotFit(
            f"{need}, but {gpus:g} of a GPU of {gpu_gib:g} GiB is {room:.1f} GiB: use a larger "
            "num_gpus, fewer concurrent streams, windows or requests, or a smaller model"
        )


def _pack(shares: Sequence[Share], count: int) -> None:
    """Largest first, each onto the first GPU with room, as Ray does."""
    free = [1.0] * count
    each = sorted((share for share in shares for _ in range(share.replicas)), key=_largest)
    for share in each:
        for _ in range(max(1, int(share.gpus))):
            wanted = min(share.gpus, 1.0)
            free_gpu = next((gpu for gpu, left in enumerate(free) if left >= wanted - 1e-9), None)
            if free_gpu is None:
                requested = " + ".join(f"{it.replicas} x {it.gpus:g}" for it in shares)
                raise DoesNotFit(
                    f"num_gpus {requested} do not fit onto {count} GPU{'s' * (count > 1)}: none is "
                    f"left for {share.need.engine}"
                )
            free[free_gpu] -= wanted


def _largest(share: Share) -> float:
    return -share.gpus
