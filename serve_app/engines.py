"""Every engine by its name, and how it is created from its section of the configuration."""

import importlib
from typing import Any

from deployments.chat import Chat
from deployments.chat.eliza import Eliza
from deployments.chat.openai import OpenAI
from deployments.chat.sim import SimChat
from deployments.chat.vllm import VllmChat
from deployments.diarizer import Diarizer
from deployments.diarizer.bic import Bic
from deployments.diarizer.pyannote import Pyannote
from deployments.diarizer.sim import SimDiarizer
from deployments.interfaces import (
    ChatRequest,
    DiarizationInput,
    Speech,
    SpeechRequest,
    options_of,
)
from deployments.speaker import Speaker
from deployments.speaker.espeak import Espeak
from deployments.speaker.kokoro import Kokoro
from deployments.speaker.sim import SimSpeaker
from deployments.transcriber import Transcriber
from deployments.transcriber.pocketsphinx import PocketSphinx
from deployments.transcriber.sim import SimTranscriber
from deployments.transcriber.voxtral import Voxtral
from deployments.transcriber.voxtral_realtime import VoxtralRealtime
from deployments.transcriber.voxtral_transformers import VoxtralTransformers
from serve_app.config import Config, engine_settings
from serve_app.config.weighted import HasWeights, OnVllm
from serve_app.live.options import EngineInfo, Engines
from serve_app.models import weights
from serve_app.models.gpu_plan import memory_share

ENGINES: dict[str, dict[str, Any]] = {
    "transcriber": {
        "pocketsphinx": PocketSphinx,
        "voxtral-realtime": VoxtralRealtime,
        "voxtral": Voxtral,
        "voxtral-transformers": VoxtralTransformers,
        "sim": SimTranscriber,
    },
    "chat": {"eliza": Eliza, "vllm": VllmChat, "openai": OpenAI, "sim": SimChat},
    "speaker": {"espeak": Espeak, "kokoro": Kokoro, "sim": SimSpeaker},
    "diarizer": {"bic": Bic, "pyannote": Pyannote, "sim": SimDiarizer},
}


def engine_class(kind: str, name: str) -> Any:
    """An engine by its name, or by `module:Class`. Raises `ValueError` for an unknown name."""
    known = ENGINES[kind]
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"{kind}.engine {name!r} is not one of {', '.join(known)} or module:Class")
    return getattr(importlib.import_module(module), attribute)


def new_engine(kind: str, config: Config) -> Any:
    """The engine with the settings of its section, after its weights are on disk.

    Raises `Absent` when they are missing and cannot be downloaded, `DoesNotFit` when the model does
    not fit into this GPU.
    """
    name, leaf = config.engines[kind]
    settings = engine_settings(name, leaf) if name in ENGINES[kind] else None
    args = settings.model_dump() if settings else dict(leaf.engine_args)
    if isinstance(settings, HasWeights):
        if config.models.offline:
            weights.stay_offline()
        args["model"] = str(weights.ensure(config.models, settings))
        args["gpu_memory"] = memory_share(leaf.scale.num_gpus)
        if isinstance(settings, OnVllm):
            args["gpus"] = max(1, int(leaf.scale.num_gpus))
        weights.check_here(config.models, settings, f"{kind} {name}", leaf.scale.num_gpus)
    return engine_class(kind, name)(**args)


MODELS: dict[str, tuple[Any, type]] = {
    "transcriber": (Transcriber, Speech),
    "chat": (Chat, ChatRequest),
    "speaker": (Speaker, SpeechRequest),
    "diarizer": (Diarizer, DiarizationInput),
}
"""The lanes in front of each kind of engine, and the messages that they accept."""


def configured_engines(config: Config) -> Engines:
    """What is known of each kind's engine without making one."""
    return Engines(*(_known(kind, config) for kind in Engines._fields))


def _known(kind: str, config: Config) -> EngineInfo:
    name, _ = config.engines[kind]
    engine = engine_class(kind, name)
    languages = getattr(engine, "languages", None)
    return EngineInfo(name, options_of(engine), languages, getattr(engine, "revises", True))
