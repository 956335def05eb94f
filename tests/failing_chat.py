"""A chat engine that fails with what it was asked in its exception, as libraries do."""

from collections.abc import AsyncIterator

from deployments.interfaces import NO_OPTIONS, ChatDelta, ChatRequest


class FailingChat:
    name = "failing"
    options = NO_OPTIONS

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def generated(self) -> int:
        return 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        if request.messages:
            raise ValueError(f"cannot answer {request.messages[-1].content!r}")
        yield ChatDelta(request.session, finish="stop")
