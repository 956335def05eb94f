"""Measures how loaded this replica is, and decides by it: who is admitted, and what is left out.

A place is reserved before a handshake is accepted, so that those who come at once are counted at
once. `run` measures several times a second while there is something to measure.

When the server is nearly full, it goes by shares: a tenant that has more than its share is refused
first, and one that has less is let in a little longer.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from serve_app.admission.budget import Budget, Shares
from serve_app.admission.gauges import Gauges
from serve_app.admission.ladder import HIGH, LOW, Ladder, Level
from serve_app.admission.places import Place, Places
from serve_app.admission.pressure import Delays, Pressure
from serve_app.admission.weights import Weights
from serve_app.config.admission import AdmissionConfig
from serve_app.errors import ClientError
from serve_app.limits.settings import TenantSettings
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import (
    ADMISSION_USED,
    LEVEL,
    LEVEL_CHANGES,
    SESSION_COST,
    SESSIONS_REFUSED,
)

log = logging.getLogger("voxray.admission")

SAMPLE_S = 0.2
IDLE_SAMPLE_S = 1.0

Follower = Callable[[Level, str], None]
"""Gets every change of the level, with its reason."""


class LaneLoad(NamedTuple):
    """The worst of the lanes that sessions use."""

    round_trip_s: float
    busy: float


class Threshold(NamedTuple):
    """Up to where a tenant is let in."""

    part: float
    """Of what sessions may fill."""
    pressure: float
    level: Level


ABOVE = Threshold(0.9, LOW, Level.NORMAL)
EVEN = Threshold(1.0, LOW, Level.NORMAL)
BELOW = Threshold(1.1, HIGH, Level.RECORDINGS_PAUSE)
"""A tenant that has more than its share, just that, or less."""


class Admission:
    """Of one ingress replica."""

    def __init__(
        self,
        config: AdmissionConfig,
        guess: Shares,
        metrics: Metrics,
        retry_after_s: Callable[[], int],
        weights: Weights | None = None,
    ) -> None:
        self.weights = weights or Weights(TenantSettings({}))
        self._config = config
        self._metrics = metrics
        self._retry_after_s = retry_after_s
        self._budget = Budget(config.cpu_share, guess)
        self._pressure = Pressure()
        self._ladder = Ladder()
        self._followers: list[Follower] = []
        self._places = Places()
        self._came = asyncio.Event()
        self.sessions: Callable[[], int] = lambda: 0
        """How many are open; set by their owner."""
        metrics.watch(LEVEL, lambda: self.level)
        for at, name in enumerate(Shares._fields):
            metrics.watch(ADMISSION_USED, partial(self._share_of, "used", at), name)
            metrics.watch(SESSION_COST, partial(self._share_of, "cost", at), name)

    @property
    def level(self) -> Level:
        return self._ladder.level

    @property
    def reason(self) -> str:
        return self._pressure.reason if self.level else ""

    def _share_of(self, what: Literal["used", "cost"], at: int) -> float:
        shares: Shares = getattr(self._budget, what)
        return shares[at]

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

    def has_room(self, tenant: str, most: int) -> bool:
        """Whether one of `most` places is for the tenant."""
        return self.weights.has_room(tenant, self._places.held, most)

    def reserve(self, tenant: str) -> Place:
        """Raises `ClientError` when the measured budget has no room."""
        self._check(tenant, BELOW)
        return self._places.reserve(time.monotonic(), tenant)

    def _check(self, tenant: str, widest: Threshold) -> None:
        self.weights.asks(tenant, time.monotonic())
        if not self._is_open(tenant, widest):
            self._metrics.count(SESSIONS_REFUSED)
            base = self._retry_after_s()
            raise ClientError(
                "overloaded",
                "the server has no capacity left; retry later",
                random.randint(base, 2 * base),  # so that those refused together come back apart
            )
        self._came.set()

    def take(self, place: Place, heard_s: Callable[[], float]) -> bool:
        """See `Places.take`."""
        return self._places.take(place, time.monotonic(), heard_s)

    def leave(self, place: Place) -> None:
        """Safe to call twice."""
        self._places.leave(place)

    def request(self, tenant: str) -> None:
        """Reserve a place, for a moment, for work that is no session. Raises `ClientError`."""
        self._check(tenant, EVEN)
        self._places.pass_by(time.monotonic())

    def _is_open(self, tenant: str, widest: Threshold) -> bool:
        if not self._config.enabled or self._fits(ABOVE):
            return True
        due = self.weights.due(tenant, self._places.held)
        return due >= 0 and self._fits(widest if due > 0 else EVEN)

    def _fits(self, until: Threshold) -> bool:
        if self.level > until.level or self._pressure.value >= until.pressure:
            return False
        here = max(self.sessions() + self._places.reserved, self._places.unseen)
        return here < self._config.min_sessions * until.part or self._budget.has_room(
            self._places.unseen, until.part
        )

    async def run(self, lanes: Callable[[], LaneLoad]) -> None:
        """Measure until cancelled."""
        gauges = Gauges()
        while True:
            lag_s = await self._sleep()
            self._measured(lag_s, gauges, lanes())

    async def _sleep(self) -> float:
        """Until the next measurement; returns how late the event loop was."""
        if not (self.sessions() or self._places.unseen or self.level):
            await self._until_somebody_comes(IDLE_SAMPLE_S - SAMPLE_S)
        due = time.monotonic() + SAMPLE_S
        await asyncio.sleep(SAMPLE_S)
        return max(0.0, time.monotonic() - due)

    async def _until_somebody_comes(self, within_s: float) -> None:
        self._came.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._came.wait()

    def _measured(self, lag_s: float, gauges: Gauges, lanes: LaneLoad) -> None:
        now = time.monotonic()
        self._places.sweep(now)
        machine, thread = gauges.read()
        self._budget.measured(
            now, Shares(machine, thread, lanes.busy), self.sessions(), self._places.unseen
        )
        self._pressure.measured(now, Delays(lag_s, lanes.round_trip_s))
        if self._config.enabled:
            self._climb(now)

    def _climb(self, now: float) -> None:
        before = self.level
        level = self._ladder.on(self._pressure.value, now)
        if level is before:
            return
        fields = {"to": level, "cause": self._pressure.reason}
        log.warning("quality_changed", extra=fields)
        self._metrics.count(LEVEL_CHANGES, "up" if level > before else "down")
        for follower in self._followers:
            follower(level, self._pressure.reason)
