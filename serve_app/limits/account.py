"""What one tenant, or one key of it, uses on this replica, and what the others say they use. Pure.

Asking changes nothing: who is refused has used nothing.
"""

import math
from enum import StrEnum
from typing import NamedTuple

from serve_app.config.tenants import NO_LIMITS, TenantLimits
from serve_app.limits.day import Day
from serve_app.limits.lease import Lease
from serve_app.limits.window import RequestWindow
from serve_app.usage.meter import Counted


class Open(StrEnum):
    """What is limited at a time; the names are those of the limits."""

    SESSIONS = "sessions"
    CONVERSATIONS = "conversations"


QUOTAS = {
    Counted.AUDIO: "audio_seconds_per_day",
    Counted.CHARACTERS: "characters_per_day",
    Counted.TOKENS: "tokens_per_day",
}
"""What is limited a day, and the names of the limits."""


class Now(NamedTuple):
    at: float
    """Seconds of a monotonic clock."""
    day: int
    """Days since 1970-01-01, UTC."""
    replicas: int = 1
    """Among which limits are divided, because they cannot tell each other what they use."""


class Account:
    """`limits` are replaced when they change; what is used stays."""

    __slots__ = (
        "days",
        "elsewhere",
        "is_limited",
        "key",
        "leases",
        "limits",
        "requests",
        "tenant",
        "untold",
        "was_asked",
    )

    def __init__(self, tenant: str, key: str, limits: TenantLimits) -> None:
        self.tenant, self.key = tenant, key
        self.limit(limits)
        self.requests = RequestWindow()
        self.leases: dict[Open, dict[Lease, None]] = {kind: {} for kind in Open}
        self.elsewhere: dict[Open, int] = dict.fromkeys(Open, 0)
        """Open on other replicas."""
        self.days = {what: Day() for what in QUOTAS}
        self.was_asked = True
        """Since the other replicas were last asked what they use."""
        self.untold = 0
        """Requests that the other replicas do not know of."""

    def limit(self, limits: TenantLimits) -> None:
        self.limits = limits
        self.is_limited = limits != NO_LIMITS

    @property
    def is_idle(self) -> bool:
        """Nothing is lost if it is forgotten, except what the database knows, too."""
        return not any(self.leases.values()) and not any(it.reserved for it in self.days.values())

    def forget_others(self) -> None:
        """Nobody knows what other replicas use."""
        self.elsewhere = dict.fromkeys(Open, 0)
        self.requests.forget_others()
        for day in self.days.values():
            day.elsewhere = 0.0

    @property
    def has_quotas(self) -> bool:
        return self.is_limited and any(self.quota(what) for what in QUOTAS)

    def most_requests(self, now: Now) -> int:
        """0: no limit."""
        return _share(self.limits.requests_per_minute, now)

    def most_open(self, kind: Open, now: Now) -> int:
        """0: no limit."""
        most: int = getattr(self.limits, kind)
        return _share(most, now)

    def quota(self, what: Counted) -> int:
        """0: no limit."""
        most: int = getattr(self.limits, QUOTAS[what])
        return most

    def has_request(self, now: Now) -> bool:
        most = self.most_requests(now)
        return not most or self.requests.fits(most, now.at)

    def has_place(self, kind: Open, now: Now) -> bool:
        most = self.most_open(kind, now)
        return not most or len(self.leases[kind]) + self.elsewhere[kind] < most

    def has_quota(self, what: Counted, amount: float, now: Now) -> bool:
        """Whether so much is free; `amount` 0: whether anything is."""
        most = self.quota(what)
        free = self.days[what].free(most, now.day)
        return not most or (free >= amount if amount else free > 0)

    def is_spent(self, what: Counted, now: Now) -> bool:
        most = self.quota(what)
        return bool(most) and self.days[what].left(most, now.day) <= 0


def _share(most: int, now: Now) -> int:
    return math.ceil(most / now.replicas)
