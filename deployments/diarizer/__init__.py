"""The `Diarizer` deployment: lanes of recordings in front of one engine."""

from deployments.diarizer.diarizer import Diarizer

__all__ = ["Diarizer"]
