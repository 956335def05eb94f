"""The two sample rates, and how samples are stored."""

RATE = 16_000
"""Hz, of all incoming audio: every dialect resamples to it."""


VOICE_RATE = 24_000
"""Hz, of all synthesised speech: every speaker engine resamples to it."""


BYTES_PER_SAMPLE = 2

SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}
"""Of each encoding that incoming audio may have."""
