"""espeak-ng through ctypes, following its speak_lib.h (the library is in espeakng-loader, GPL-3).

The library has global state and is not thread-safe: use it from one thread of one process.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from deployments.interfaces import Voice

AUDIO_OUTPUT_SYNCHRONOUS = 2
DONT_EXIT = 0x8000
CHARS_UTF8 = 1
WORDS_PER_MINUTE = 1
BUFFER_MS = 20

NORMAL_PACE, SLOWEST, FASTEST = 175, 80, 450
"""Words per minute; espeak-ng accepts no less than SLOWEST and no more than FASTEST."""

VARIANTS = {"": "male", "+f2": "female", "+f3": "female", "+m3": "male"}
"""Gender by variant, for every language; espeak-ng labels all its own voices male."""

Sink = Callable[[bytes], bool]
"""Gets pcm_s16le as it is produced; returns True to stop."""


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class UnknownVoice(Exception):
    """espeak-ng has no such voice."""


@cache
def library() -> tuple[Any, int]:
    """The library, initialised, and its rate in Hz (22050). Raises `RuntimeError`."""
    import espeakng_loader

    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate = espeak.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, BUFFER_MS, data, DONT_EXIT)
    if rate <= 0:
        raise RuntimeError("espeak-ng cannot be initialised")
    espeak.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    return espeak, rate


@cache
def identifiers() -> dict[str, str]:
    """espeak-ng's name for the voice of each language tag."""
    return {language: identifier for identifier, language, _ in _listed()}


def voices() -> list[Voice]:
    """Every language's voice and its variants."""
    return [
        Voice(language + variant, language, gender, name + (f", {variant[1:]}" if variant else ""))
        for _, language, name in sorted(_listed(), key=lambda listed: listed[1])
        for variant, gender in VARIANTS.items()
    ]


def _listed() -> list[tuple[str, str, str]]:
    """Identifier, language tag, name. A language is a priority byte and a tag."""
    found, out, at = library()[0].espeak_ListVoices(None), [], 0
    while found[at]:
        voice = found[at].contents
        out.append((voice.identifier.decode(), voice.languages[1:].decode(), voice.name.decode()))
        at += 1
    return out


def speak(text: str, voice: str, words_per_minute: int, sink: Sink) -> None:
    """Speak into the sink, at the library's rate. Raises `UnknownVoice`."""
    espeak, _ = library()
    language, plus, variant = voice.partition("+")

    def on_audio(samples: Any, count: int, _: Any) -> int:
        if not samples or count <= 0:
            return 0
        return int(sink(ctypes.string_at(samples, count * 2)))

    callback = _CALLBACK(on_audio)
    espeak.espeak_SetSynthCallback(callback)
    name = identifiers().get(language, language) + plus + variant
    if espeak.espeak_SetVoiceByName(name.encode()):
        raise UnknownVoice(f"espeak-ng has no voice {voice}")
    espeak.espeak_SetParameter(WORDS_PER_MINUTE, words_per_minute, 0)
    encoded = text.replace("\0", " ").encode(errors="replace")
    size = ctypes.c_size_t(len(encoded) + 1)
    espeak.espeak_Synth(encoded, size, 0, 1, 0, CHARS_UTF8, None, None)
    espeak.espeak_Synchronize()
