"""The `Speaker` deployment: lanes of requests in front of one engine that speaks text."""

from deployments.speaker.speaker import Speaker

__all__ = ["Speaker"]
