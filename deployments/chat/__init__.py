"""The `Chat` deployment: lanes of requests in front of one engine that writes replies."""

from deployments.chat.chat import Chat

__all__ = ["Chat"]
