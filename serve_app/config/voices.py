"""The voice names of OpenAI's API, mapped to voices of each engine."""

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
"""For espeak."""


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
"""For Kokoro."""


VOICES: dict[str, tuple[str, dict[str, str]]] = {
    "espeak": ("en-us+f3", OPENAI_VOICES),
    "kokoro": ("af_heart", KOKORO_VOICES),
    "sim": ("sim-low", dict.fromkeys(OPENAI_VOICES, "sim-low")),
}
"""The default voice of each built-in engine, and its voices by OpenAI's names."""
