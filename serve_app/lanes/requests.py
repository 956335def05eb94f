"""Requests over lanes: sent once, answered in pieces, cancelled by leaving the lane."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from deployments.fairness import Payer
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.lanes.lane import LaneStream
from serve_app.lanes.pool import LanePool
from serve_app.observability.origin import NOBODY
from serve_app.usage.meter import Counted, Meter

PayerOf = Callable[[Principal], Payer]

QUARANTINED = object()
MAX_REFUSED = 1024
"""Quarantined requests that are remembered."""


class Measure(NamedTuple):
    """What a deployment's requests use."""

    what: Counted
    amount: Callable[[Any, Any], float]
    """By a request's fields and one of its answers: all that it has used so far."""


class Call:
    """One request and owner of its stream; it is sent as soon as it exists.

    If the replica is lost before the first answer, another one gets the request.
    """

    def __init__(
        self, calls: "Calls", request: tuple[Any, ...], caller: Principal, trace: str
    ) -> None:
        self._calls = calls
        self._caller = caller
        self._used = 0.0
        self._request = request
        self._trace = trace
        self._begun = False
        self._over = False
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._stream = LaneStream(calls.lanes, self, calls.payer_of(caller))
        calls.lanes.attach(self._stream)

    def attached(self) -> None:
        if self._begun and not self._over:
            self._answers.put_nowait(None)
        elif not self._over:
            self._stream.put((*self._request, self._trace), urgent=True)

    def unserved(self) -> None:
        """What has begun cannot go on elsewhere."""
        if self._begun and not self._over:
            self._answers.put_nowait(None)

    def answered(self, answer: Any) -> None:
        self._begun = True
        self._over = answer.ended
        self._count(answer)
        self._answers.put_nowait(answer)

    def _count(self, answer: Any) -> None:
        """As it comes: a request that is cancelled has used what it has used."""
        what, amount = self._calls.measure
        used = max(self._used, amount(self._request, answer))
        self._calls.meter.add(self._caller, what, used - self._used)
        self._used = used

    def busy(self) -> bool:
        return not self._over

    def quarantined(self) -> None:
        self._over = True
        self._calls.refuse(self._request)
        self._answers.put_nowait(QUARANTINED)

    def leave(self) -> None:
        """Safe to call twice."""
        self._stream.leave()

    async def answers(self) -> AsyncIterator[Any]:
        """All answers. Raises `ClientError` when the engine fails, is lost, or sends nothing for
        too long. Closing the iterator cancels the request."""
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
                "engine_timeout", f"no answer from the engine within {timeout_s:g} s"
            ) from error
        if answer is QUARANTINED:
            raise request_quarantined()
        if answer is None:
            raise ClientError(
                self._calls.failure, "the engine was lost before it had finished its answer"
            )
        return answer


def request_quarantined() -> ClientError:
    return ClientError("request_quarantined", "this request crashed the engine twice")


class Calls:
    """All requests from this ingress to one deployment."""

    def __init__(
        self,
        lanes: LanePool,
        timeout_s: float,
        failure: str,
        meter: Meter,
        measure: Measure,
        payer_of: PayerOf,
    ) -> None:
        self.lanes = lanes
        self.meter = meter
        self.measure = measure
        self.payer_of = payer_of
        self.timeout_s = timeout_s
        self._refused: dict[int, None] = {}
        self.failure = failure
        """The error code when the engine fails or is lost."""

    def refuse(self, request: tuple[Any, ...]) -> None:
        """Refuse the same request from now on; the oldest entry is dropped."""
        self._refused[hash(request)] = None
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def start(self, *request: Any, caller: Principal = NOBODY, trace: str = "") -> Call:
        """`request`: the request's fields between the first, which is the stream's key, and the
        last, which is its trace. `caller`: for whom it is counted, and out of whose share it
        is done.

        Raises `ClientError` for a quarantined request.
        """
        if self._refused and hash(request) in self._refused:
            raise request_quarantined()
        return Call(self, request, caller, trace)

    def stream(
        self, *request: Any, caller: Principal = NOBODY, trace: str = ""
    ) -> AsyncIterator[Any]:
        """Start a request and iterate over its answers; closing the iterator cancels it."""
        return self.start(*request, caller=caller, trace=trace).answers()
