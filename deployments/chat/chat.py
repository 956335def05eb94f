"""Chat requests in front of an engine. Knows no engine by name."""

from collections.abc import AsyncIterator
from typing import Any

from deployments.interfaces import ChatDelta, ChatEngine, ChatRequest
from deployments.requests import RequestModel


class Chat(RequestModel[ChatEngine]):
    """`ChatRequest` in, `ChatDelta` out."""

    def answer(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        return self.engine.reply(request)

    def failed(self, request: Any, reason: str) -> ChatDelta:
        return ChatDelta(request.session, failure=reason)
