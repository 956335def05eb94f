"""Checkpoints of the real architectures with random weights, in the formats that the engines read.

Tiny ones make the tests run the real code; the full-size ones (`SIZES`) have no weights file at
all, and are for `load_format="dummy"` on a GPU, where speed is asked for and not words.
The tokenizer is mistral-common's own, with the special tokens and the audio section of Voxtral's.
What such a checkpoint says is noise.
"""

import importlib.resources
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

VOCABULARY = 4096
"""Ranks kept of the tokenizer: any prefix of a byte-pair vocabulary is one."""

SPECIAL_TOKENS = 1000
NAMES = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[STREAMING_PAD]",
    33: "[STREAMING_WORD]",
    34: "[TRANSCRIBE]",
}

MEL = {"num_mel_bins": 128, "hop_length": 160, "window_size": 400}
AUDIO = {
    "sampling_rate": 16000,
    "frame_rate": 12.5,
    "audio_encoding_config": MEL,
    "chunk_length_s": 30.0,
}
STREAMED_AUDIO = {
    "sampling_rate": 16000,
    "frame_rate": 12.5,
    "audio_encoding_config": MEL,
    "transcription_format": "streaming",
    "transcription_delay_ms": 480.0,
    "streaming_look_ahead_ms": 2.5,
    "streaming_look_back_ms": 52.5,
    "streaming_n_left_pad_tokens": 32,
}


class Size(NamedTuple):
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    encoder_dim: int
    encoder_layers: int
    encoder_heads: int
    encoder_hidden: int
    vocabulary: int = VOCABULARY


TINY = Size(128, 2, 4, 2, 32, 256, 128, 2, 4, 512)
SIZES = {
    "Voxtral-Mini-4B-Realtime-2602": Size(
        3072, 26, 32, 8, 128, 9216, 1280, 32, 32, 5120, 131072 - SPECIAL_TOKENS
    ),
    "Voxtral-Mini-3B-2507": Size(
        3072, 30, 32, 8, 128, 8192, 1280, 32, 20, 5120, 131072 - SPECIAL_TOKENS
    ),
    "Voxtral-Small-24B-2507": Size(
        5120, 40, 32, 8, 128, 32768, 1280, 32, 20, 5120, 131072 - SPECIAL_TOKENS
    ),
    "chat-8B": Size(4096, 36, 32, 8, 128, 12288, 0, 0, 0, 0, 131072 - SPECIAL_TOKENS),
}
"""As published in each model's params.json; from memory where no copy was available."""


def voxtral(to: Path, size: Size = TINY, weights: bool = True) -> Path:
    """Voxtral as vLLM reads it: params.json, tekken.json, consolidated.safetensors."""
    _tekken(to, AUDIO, size.vocabulary)
    params = _text_params(size) | {"rope_theta": 1e8, "max_position_embeddings": 32768}
    params["multimodal"] = _ears(size, streaming=False)
    return _mistral(to, params, size, "mm_whisper_embeddings.", False, weights)


def voxtral_realtime(to: Path, size: Size = TINY, weights: bool = True) -> Path:
    """Voxtral Realtime as vLLM reads it."""
    _tekken(to, STREAMED_AUDIO, size.vocabulary)
    params = _text_params(size) | {
        "tied_embeddings": True,
        "max_position_embeddings": 131072,
        "sliding_window": 8192,
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": 32,
    }
    params["multimodal"] = _ears(size, streaming=True)
    return _mistral(to, params, size, "mm_streams_embeddings.embedding_module.", True, weights)


def chat(to: Path, size: Size = TINY, weights: bool = True) -> Path:
    """A text model as vLLM reads it."""
    _tekken(to, None, size.vocabulary)
    params = _text_params(size) | {"max_position_embeddings": 32768}
    return _mistral(to, params, size, "", False, weights)


def voxtral_transformers(to: Path, hidden: int = 64, layers: int = 2) -> Path:
    """Voxtral as transformers reads it, bfloat16."""
    import torch
    from transformers import (
        GenerationConfig,
        MistralCommonBackend,
        VoxtralConfig,
        VoxtralForConditionalGeneration,
        VoxtralProcessor,
        WhisperFeatureExtractor,
    )

    vocabulary = _tekken(to, AUDIO, VOCABULARY)
    features = WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, hop_length=160, chunk_length=30, n_fft=400
    )
    VoxtralProcessor(features, MistralCommonBackend.from_pretrained(to)).save_pretrained(to)
    shared = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "head_dim": hidden // 4,
        "vocab_size": vocabulary,
    }
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    config = VoxtralConfig(
        audio_token_id=24,
        audio_config=shared
        | {
            "model_type": "voxtral_encoder",
            "intermediate_size": 4 * hidden,  # the projector folds by it
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        text_config=shared
        | tokens
        | {
            "model_type": "llama",
            "intermediate_size": 2 * hidden,
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e8,
        },
    )
    torch.manual_seed(0)
    model = VoxtralForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(to)
    return to


def kokoro(to: Path, voices: tuple[str, ...], small: bool = False) -> Path:
    """Kokoro-82M v1.0, its files named and laid out as published; `small` is a third faster."""
    import torch
    from kokoro import KModel

    (to / "voices").mkdir(parents=True, exist_ok=True)
    config = _kokoro_config(small)
    (to / "config.json").write_text(json.dumps(config, ensure_ascii=False))
    torch.manual_seed(0)
    empty = to / "empty.pth"
    torch.save({}, empty)
    model = KModel(repo_id="hexgrad/Kokoro-82M", config=config, model=str(empty))
    empty.unlink()
    _natural_durations(model, config["max_dur"], seconds_a_phoneme=0.075)
    parts = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
    state = {
        part: {f"module.{name}": value for name, value in getattr(model, part).state_dict().items()}
        for part in parts
    }
    torch.save(state, to / "kokoro-v1_0.pth")
    for voice in voices:
        torch.save(torch.randn(510, 1, 256) * 0.1, to / "voices" / f"{voice}.pt")
    return to


def _natural_durations(model: Any, most: int, seconds_a_phoneme: float) -> None:
    """A random head makes every phoneme 0.6 s long; its bias can make that anything."""
    share = seconds_a_phoneme * 40 / most
    head = model.predictor.duration_proj.linear_layer
    head.bias.data.fill_(math.log(share / (1 - share)))
    head.weight.data.mul_(0.2)


def _tekken(to: Path, audio: dict[str, Any] | None, vocabulary: int) -> int:
    """Writes tekken.json; the number of all tokens."""
    to.mkdir(parents=True, exist_ok=True)
    data = importlib.resources.files("mistral_common") / "data" / "tekken_240911.json"
    tokenizer = json.loads(data.read_text())
    for part in ("image", "multimodal"):
        tokenizer.pop(part, None)
    tokenizer["vocab"] = tokenizer["vocab"][:vocabulary]
    total = vocabulary + SPECIAL_TOKENS
    tokenizer["config"] |= {
        "version": "v7",
        "num_vocab_tokens": vocabulary,
        "default_vocab_size": total,
        "default_num_special_tokens": SPECIAL_TOKENS,
    }
    tokenizer["special_tokens"] = [
        {"rank": rank, "token_str": NAMES.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(SPECIAL_TOKENS)
    ]
    tokenizer |= {"version": 1, "type": "Tekken"} | ({"audio": audio} if audio else {})
    (to / "tekken.json").write_text(json.dumps(tokenizer))
    return total


def _text_params(size: Size) -> dict[str, Any]:
    return {
        "dim": size.dim,
        "n_layers": size.layers,
        "head_dim": size.head_dim,
        "hidden_dim": size.hidden,
        "n_heads": size.heads,
        "n_kv_heads": size.kv_heads,
        "use_biases": False,
        "causal": True,
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "vocab_size": size.vocabulary + SPECIAL_TOKENS,
        "model_parallel": 1,
        "tied_embeddings": False,
    }


def _ears(size: Size, streaming: bool) -> dict[str, Any]:
    encoding = {"sampling_rate": 16000, "frame_rate": 12.5, **MEL}
    encoder: dict[str, Any] = {
        "dim": size.encoder_dim,
        "n_layers": size.encoder_layers,
        "head_dim": size.encoder_dim // size.encoder_heads,
        "hidden_dim": size.encoder_hidden,
        "n_heads": size.encoder_heads,
        "vocab_size": size.vocabulary + SPECIAL_TOKENS,
        "max_source_positions": None if streaming else 1500,
        "audio_encoding_args": encoding | {"chunk_length_s": None if streaming else 30.0},
    }
    if streaming:
        encoder["audio_encoding_args"] |= {
            "global_log_mel_max": 1.5,
            "transcription_format": "streaming",
        }
        encoder |= {
            "causal": True,
            "use_biases": True,
            "use_cache": False,
            "rope_theta": 1e6,
            "norm_eps": 1e-5,
            "pos_embed": "rope",
            "sliding_window": 750,
            "ffn_type": "swiglu",
            "norm_type": "rms_norm",
        }
    downsample = {"downsample_factor": 4}
    return {"whisper_model_args": {"encoder_args": encoder, "downsample_args": downsample}}


def _mistral(
    to: Path, params: dict[str, Any], size: Size, ears: str, streaming: bool, weights: bool
) -> Path:
    (to / "params.json").write_text(json.dumps(params))
    if weights:
        from safetensors.torch import save_file

        made = _Weights()
        total = params["vocab_size"]
        made.random(f"{ears}tok_embeddings.weight", total, size.dim, scale=0.05)
        _text_weights(made, size, streaming)
        if not streaming:
            made.random("output.weight", total, size.dim, scale=0.2)
        if ears:
            _ear_weights(made, size, ears, streaming)
        save_file(made.tensors, to / "consolidated.safetensors")
    return to


class _Weights:
    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator().manual_seed(0)
        self.tensors: dict[str, Any] = {}

    def random(self, name: str, *shape: int, scale: float = 0.12) -> None:
        drawn = self._torch.randn(*shape, generator=self._random) * scale
        self.tensors[name] = drawn.to(self._torch.bfloat16)

    def ones(self, name: str, length: int) -> None:
        self.tensors[name] = self._torch.ones(length, dtype=self._torch.bfloat16)

    def zeros(self, name: str, length: int) -> None:
        self.tensors[name] = self._torch.zeros(length, dtype=self._torch.bfloat16)


def _text_weights(made: _Weights, size: Size, streaming: bool) -> None:
    wide, narrow = size.heads * size.head_dim, size.kv_heads * size.head_dim
    for layer in range(size.layers):
        at = f"layers.{layer}."
        made.random(f"{at}attention.wq.weight", wide, size.dim)
        made.random(f"{at}attention.wk.weight", narrow, size.dim)
        made.random(f"{at}attention.wv.weight", narrow, size.dim)
        made.random(f"{at}attention.wo.weight", size.dim, wide)
        made.random(f"{at}feed_forward.w1.weight", size.hidden, size.dim)
        made.random(f"{at}feed_forward.w2.weight", size.dim, size.hidden)
        made.random(f"{at}feed_forward.w3.weight", size.hidden, size.dim)
        made.ones(f"{at}attention_norm.weight", size.dim)
        made.ones(f"{at}ffn_norm.weight", size.dim)
        if streaming:
            made.random(f"{at}ada_rms_norm_t_cond.0.weight", 32, size.dim)
            made.random(f"{at}ada_rms_norm_t_cond.2.weight", size.dim, 32)
    made.ones("norm.weight", size.dim)


def _ear_weights(made: _Weights, size: Size, ears: str, streaming: bool) -> None:
    at, dim = f"{ears}whisper_encoder.", size.encoder_dim
    conv = ".conv" if streaming else ""
    for number, channels in ((0, 128), (1, dim)):
        made.random(f"{at}conv_layers.{number}{conv}.weight", dim, channels, 3)
        made.zeros(f"{at}conv_layers.{number}{conv}.bias", dim)
    for layer in range(size.encoder_layers):
        _ear_layer(made, size, f"{at}transformer.layers.{layer}.", streaming)
    made.ones(f"{at}transformer.norm.weight", dim)
    if not streaming:
        made.zeros(f"{at}transformer.norm.bias", dim)
    made.random(f"{ears}audio_language_projection.0.weight", size.dim, 4 * dim, scale=0.2)
    made.random(f"{ears}audio_language_projection.2.weight", size.dim, size.dim, scale=0.5)


def _ear_layer(made: _Weights, size: Size, at: str, streaming: bool) -> None:
    dim, hidden = size.encoder_dim, size.encoder_hidden
    for name in ("wq", "wk", "wv", "wo"):
        made.random(f"{at}attention.{name}.weight", dim, dim)
        if name != "wk":
            made.zeros(f"{at}attention.{name}.bias", dim)
    made.ones(f"{at}attention_norm.weight", dim)
    made.ones(f"{at}ffn_norm.weight", dim)
    made.random(f"{at}feed_forward.w1.weight", hidden, dim)
    made.random(f"{at}feed_forward.w2.weight", dim, hidden)
    made.zeros(f"{at}feed_forward.w2.bias", dim)
    if streaming:
        made.random(f"{at}feed_forward.w3.weight", hidden, dim)
    else:
        made.zeros(f"{at}feed_forward.w1.bias", hidden)
        made.zeros(f"{at}attention_norm.bias", dim)
        made.zeros(f"{at}ffn_norm.bias", dim)


PHONEMES = (
    ';:,.!?—…"()“” \u0303ʣʥʦʨᵝ\uab67AIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθ'
    "œɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ"
)


def _kokoro_config(small: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "istftnet": {
            "upsample_kernel_sizes": [20, 12],
            "upsample_rates": [10, 6],
            "gen_istft_hop_size": 5,
            "gen_istft_n_fft": 20,
            "resblock_dilation_sizes": [[1, 3, 5]] * (1 if small else 3),
            "resblock_kernel_sizes": [3] if small else [3, 7, 11],
            "upsample_initial_channel": 512,
        },
        "dim_in": 64,
        "dropout": 0.2,
        "hidden_dim": 512,
        "max_conv_dim": 512,
        "max_dur": 50,
        "multispeaker": True,
        "n_layer": 1 if small else 3,
        "n_mels": 80,
        "n_token": 178,
        "style_dim": 128,
        "text_encoder_kernel_size": 5,
        "plbert": {
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 2048,
            "max_position_embeddings": 512,
            "num_hidden_layers": 12,
            "dropout": 0.1,
        },
        "vocab": {symbol: number for number, symbol in enumerate(PHONEMES, 1)},
    }
    if small:
        config["plbert"] |= {
            "hidden_size": 64,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
        }
    return config
