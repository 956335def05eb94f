"""The two sample rates, and how samples are stored."""

RATE = 16_000
"""Hz, of all incoming audio: every dialect resamples to it."""


VOICE_RATE = 24_000
"""Hz, of all synthesised speech: every speaker engine resamples to it."""


BYTES_PER_SAMPLE = 2
