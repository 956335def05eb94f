"""The `Transcriber` deployment: lanes of many sessions in front of one engine."""

from deployments.transcriber.transcriber import Transcriber

__all__ = ["Transcriber"]
