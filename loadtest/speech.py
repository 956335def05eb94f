"""Speech to send: espeak-ng speaks it on the spot, through ctypes (espeakng-loader, GPL-3).

Functions as in espeak-ng's speak_lib.h. One process-wide state machine: call from one thread.
"""

import ctypes
import io
import wave
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.interfaces import RATE

AUDIO_OUTPUT_SYNCHRONOUS = 2
DONT_EXIT = 0x8000
CHARS_UTF8 = 1
WORDS_PER_MINUTE = 1

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

SENTENCES = (
    "The weather in Paris will be sunny and warm tomorrow.",
    "Please call me a taxi for half past nine in the morning.",
    "I would like to know how many people one machine can serve.",
    "She opened the window and listened to the rain for a while.",
)


@cache
def _library() -> tuple[Any, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 20, data, DONT_EXIT)
    if rate <= 0:
        raise RuntimeError("espeak-ng does not start")
    return library, rate


def speak(text: str, voice: str = "en-us", words_per_minute: int = 150) -> NDArray[np.int16]:
    """The text as 16 kHz mono int16 samples."""
    library, rate = _library()
    pieces: list[NDArray[np.int16]] = []

    def on_audio(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(on_audio)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak-ng has no voice {voice}")
    library.espeak_SetParameter(WORDS_PER_MINUTE, words_per_minute, 0)
    said = text.encode()
    library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 1, 0, CHARS_UTF8, None, None)
    library.espeak_Synchronize()
    spoken: NDArray[np.int16] = soxr.resample(np.concatenate(pieces), rate, RATE)
    return spoken


def conversation(sentences: Sequence[str] = SENTENCES, pause_s: float = 0.8) -> bytes:
    """The sentences with pauses between them, as pcm_s16le at 16 kHz."""
    pause = np.zeros(int(pause_s * RATE), np.int16)
    parts = [part for sentence in sentences for part in (speak(sentence), pause)]
    return np.concatenate(parts).tobytes()


def wav(pcm: bytes, rate: int = 16_000, channels: int = 1) -> bytes:
    """The samples as a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return out.getvalue()
