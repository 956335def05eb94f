"""The two sample rates, and how samples are stored."""

RATE = 16_000
"""Hz: the one rate of what is heard. Every dialect resamples to it at its edge."""


VOICE_RATE = 24_000
"""Hz: the one rate of what is spoken. Every speaker engine resamples to it."""


BYTES_PER_SAMPLE = 2
