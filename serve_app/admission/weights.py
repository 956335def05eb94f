"""Which share of everything is whose. Pure.

Tenants count that the configuration names, those that have something open, and those that have
asked for something lately.
"""

from collections.abc import Mapping

from deployments.fairness import Payer
from serve_app.identity.principal import Principal
from serve_app.limits.settings import TenantSettings

LATELY_S = 600.0
MOST = 10_000
"""Tenants that are remembered; a token's issuer may name any number."""

OTHERS = 10
"""A tenant with more than its share leaves one place in this many to others."""


class Weights:
    """`now` is in seconds of any monotonic clock."""

    def __init__(self, settings: TenantSettings) -> None:
        self._settings = settings
        self._asked: dict[str, float] = {}
        """When each tenant last asked for something, the latest last."""

    def of(self, tenant: str) -> float:
        return self._settings.of(tenant).weight

    def payer(self, caller: Principal) -> Payer:
        return Payer(caller.tenant, self.of(caller.tenant))

    def asks(self, tenant: str, now: float) -> None:
        self._asked.pop(tenant, None)
        self._asked[tenant] = now
        while len(self._asked) > MOST or next(iter(self._asked.values())) < now - LATELY_S:
            del self._asked[next(iter(self._asked))]

    def due(self, tenant: str, held: Mapping[str, int]) -> float:
        """How many places its share is beyond what it would have with one more. Below 0: that would
        be more than its share; 0 if it is alone. `held`: the places of each tenant."""
        counted = {*self._settings.names, *self._asked, *held, tenant}
        weights = {name: self.of(name) for name in counted}
        share = weights[tenant] / sum(weights.values())
        return share * (sum(held.values()) + 1) - (held.get(tenant, 0) + 1)

    def has_room(self, tenant: str, held: Mapping[str, int], most: int) -> bool:
        """Whether one of `most` places is for the tenant."""
        used = sum(held.values())
        if used < most - most // OTHERS:
            return True
        return used < most and self.due(tenant, held) >= 0
