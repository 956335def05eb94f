"""Spoken conversations: decisions in `turn`, what they do in `driver`."""
