"""What the application asks of a model, and the values that cross a process boundary to ask it.

Positions and lengths are samples at `RATE` (16 kHz, mono); `pcm` is signed 16-bit little-endian.
Ten thousand of these values travel every second. They are NamedTuples because those cost a third
of what frozen dataclasses do.
"""

from deployments.interfaces.audio import BYTES_PER_SAMPLE, RATE, VOICE_RATE
from deployments.interfaces.chat import (
    ChatDelta,
    ChatEngine,
    ChatOptions,
    ChatRequest,
    Message,
    Tool,
    ToolCall,
)
from deployments.interfaces.diarization import (
    DiarizationInput,
    DiarizationResult,
    DiarizerEngine,
    SpeakerCount,
    SpeakerTurn,
)
from deployments.interfaces.engine import (
    ENGINE_FAILED,
    NO_OPTIONS,
    EngineDied,
    EngineFailed,
    LaneLost,
    Lanes,
    Option,
    Options,
    Prompt,
    Queued,
    Supervised,
    options_of,
)
from deployments.interfaces.speech import AudioDelta, SpeakerEngine, SpeechRequest, Voice
from deployments.interfaces.transcription import (
    Emit,
    EngineHypothesis,
    Hypothesis,
    Speech,
    SpeechOptions,
    TranscriberEngine,
    Utterance,
    UtteranceKey,
    Word,
    payer_of,
)
from deployments.interfaces.vad import (
    RECALL,
    Edge,
    Endpoint,
    Resume,
    Transition,
    VadInput,
    VadResult,
)

__all__ = [
    "BYTES_PER_SAMPLE",
    "ENGINE_FAILED",
    "NO_OPTIONS",
    "RATE",
    "RECALL",
    "VOICE_RATE",
    "AudioDelta",
    "ChatDelta",
    "ChatEngine",
    "ChatOptions",
    "ChatRequest",
    "DiarizationInput",
    "DiarizationResult",
    "DiarizerEngine",
    "Edge",
    "Emit",
    "Endpoint",
    "EngineDied",
    "EngineFailed",
    "EngineHypothesis",
    "Hypothesis",
    "LaneLost",
    "Lanes",
    "Message",
    "Option",
    "Options",
    "Prompt",
    "Queued",
    "Resume",
    "SpeakerCount",
    "SpeakerEngine",
    "SpeakerTurn",
    "Speech",
    "SpeechOptions",
    "SpeechRequest",
    "Supervised",
    "Tool",
    "ToolCall",
    "TranscriberEngine",
    "Transition",
    "Utterance",
    "UtteranceKey",
    "VadInput",
    "VadResult",
    "Voice",
    "Word",
    "options_of",
    "payer_of",
]
