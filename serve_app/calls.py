"""Requests over lanes: asked once, answered piece by piece, cancelled by leaving the seat."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from serve_app.errors import ClientError
from serve_app.lanes import Lanes, Seat


class _Call:
    """A request as a lane's rider. A replica that is lost before it answered is replaced."""

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self._begun = False
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    def seated(self) -> None:
        if self._begun:
            self.answers.put_nowait(None)
        else:
            self._put()

    def answered(self, answer: Any) -> None:
        self._begun = True
        self.answers.put_nowait(answer)


class Calls:
    """All requests from this ingress to one deployment."""

    def __init__(self, lanes: Lanes, timeout_s: float, failure: str) -> None:
        self.lanes = lanes
        self._timeout_s = timeout_s
        self._failure = failure
        """The error code for whatever goes wrong over there."""

    async def stream(self, *request: Any) -> AsyncIterator[Any]:
        """The answers to a request (its fields but the first). Close it to cancel the request.

        Raises `ClientError` when the engine fails, is lost or says nothing for `timeout_s`.
        """
        call = _Call(lambda: seat.put(request, urgent=True))
        seat = Seat(self.lanes, call)
        self.lanes.place(seat)
        try:
            while True:
                answer = await self._next(call)
                if answer.failure is not None:
                    raise ClientError(self._failure, answer.failure)
                yield answer
                if answer.ended:
                    return
        finally:
            seat.leave()

    async def _next(self, call: _Call) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call.answers.get()
        except TimeoutError as error:
            raise ClientError(
                "engine_timeout", f"the engine said nothing for {self._timeout_s:g} s"
            ) from error
        if answer is None:
            raise ClientError(self._failure, "the engine was lost in mid-answer")
        return answer
