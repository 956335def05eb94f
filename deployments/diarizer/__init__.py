"""Who spoke when: lanes in front of an engine."""

from deployments.diarizer.diarizer import Diarizer

__all__ = ["Diarizer"]
