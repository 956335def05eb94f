"""Chat requests in front of an engine. Knows no engine by name."""

from collections.abc import AsyncIterator
from typing import Any

from deployments.interfaces import Ask, ChatEngine, Written
from deployments.requests import RequestModel


class Chat(RequestModel[ChatEngine]):
    """Implements `interfaces.Requests`: `Ask` in, `Written` out."""

    def answer(self, request: Ask) -> AsyncIterator[Written]:
        return self.engine.reply(request)

    def failed(self, request: Any, reason: str) -> Written:
        return Written(request.session, failure=reason)
