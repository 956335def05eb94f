"""Requests over lanes: asked once, answered piece by piece, cancelled by leaving the stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from serve_app.errors import ClientError
from serve_app.lanes.pool import Lanes, LaneStream

QUARANTINED = object()
MOST_REFUSED = 1024


class Call:
    """One request as a lane's owner: it is on its way as soon as it exists.

    A replica that is lost before it answered is replaced. `leave` cancels the request.
    """

    def __init__(self, calls: "Calls", request: tuple[Any, ...]) -> None:
        self._calls = calls
        self._request = request
        self._begun = False
        self._over = False
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._stream = LaneStream(calls.lanes, self)
        calls.lanes.attach(self._stream)

    def attached(self) -> None:
        if self._begun and not self._over:
            self._answers.put_nowait(None)
        elif not self._over:
            self._stream.put(self._request, urgent=True)

    def answered(self, answer: Any) -> None:
        self._begun = True
        self._over = answer.ended
        self._answers.put_nowait(answer)

    def busy(self) -> bool:
        return not self._over

    def quarantined(self) -> None:
        self._over = True
        self._calls.remember(self._request)
        self._answers.put_nowait(QUARANTINED)

    def leave(self) -> None:
        """Safe to call twice."""
        self._stream.leave()

    async def answers(self) -> AsyncIterator[Any]:
        """All of them. Raises `ClientError` when the engine fails, is lost or says nothing for
        too long; however it ends, the request is left."""
        try:
            while True:
                answer = await self._next()
                if answer.failure is not None:
                    raise ClientError(self._calls.failure, answer.failure)
                yield answer
                if answer.ended:
                    return
        finally:
            self.leave()

    async def _next(self) -> Any:
        timeout_s = self._calls.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._answers.get()
        except TimeoutError as error:
            raise ClientError(
                "engine_timeout", f"the engine said nothing for {timeout_s:g} s"
            ) from error
        if answer is QUARANTINED:
            raise guilty()
        if answer is None:
            raise ClientError(self._calls.failure, "the engine was lost in mid-answer")
        return answer


def guilty() -> ClientError:
    return ClientError("request_quarantined", "this request ended the engine twice")


class Calls:
    """All requests from this ingress to one deployment."""

    def remember(self, request: tuple[Any, ...]) -> None:
        """Refuse the same from now on; the oldest is forgotten."""
        self._refused[hash(request)] = None
        if len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    def __init__(self, lanes: Lanes, timeout_s: float, failure: str) -> None:
        self.lanes = lanes
        self.timeout_s = timeout_s
        self._refused: dict[int, None] = {}
        self.failure = failure
        """The error code for whatever goes wrong over there."""

    def start(self, *request: Any) -> Call:
        """A request is its fields but the first, which is its stream's key. Raises `ClientError`
        for one that is quarantined."""
        if self._refused and hash(request) in self._refused:
            raise guilty()
        return Call(self, request)

    def stream(self, *request: Any) -> AsyncIterator[Any]:
        """Its answers; close the iterator to cancel it."""
        return self.start(*request).answers()
