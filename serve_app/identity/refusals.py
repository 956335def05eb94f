"""Counts who is not let in, and tells the audit log, which strangers must not be able to fill."""

import asyncio
from typing import NamedTuple

from serve_app.identity.login_refused import RefusalReason
from serve_app.observability.audit import audit
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import LOGINS_REFUSED

MINUTE_S = 60.0
MOST = 1_000
"""Different refusals in a minute that are told apart; the rest has the address `others`."""


class _Refusal(NamedTuple):
    address: str
    reason: RefusalReason
    key: str


class Refusals:
    """The first refusal of its kind is written at once, the others once a minute, as a number."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._more: dict[_Refusal, int] = {}
        for reason in RefusalReason:
            metrics.begin(LOGINS_REFUSED, reason.value)

    def note(self, reason: RefusalReason, address: str, key: str = "") -> None:
        """`key`: the id of the key that was shown, if there is one with this id."""
        self._metrics.count(LOGINS_REFUSED, reason.value)
        refusal = _Refusal(address, reason, key)
        if refusal not in self._more and len(self._more) >= MOST:
            refusal = _Refusal("others", reason, "")
        if refusal in self._more:
            self._more[refusal] += 1
        else:
            self._more[refusal] = 0
            _write(refusal)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(MINUTE_S)
            self.sum_up()

    def sum_up(self) -> None:
        counted, self._more = self._more, {}
        for refusal, more in counted.items():
            if more:
                _write(refusal, more)


def _write(refusal: _Refusal, more: int | None = None) -> None:
    address, reason, key = refusal
    audit("login_refused", address=address, reason=reason.value, key=key, count=more)
