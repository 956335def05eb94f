"""Which share of everything is whose. Pure.

Tenants count that the configuration names, and those that have asked for something lately.
"""

from collections.abc import Mapping

from deployments.fairness import Payer
from serve_app.config.tenants import DEFAULT, TenantConfig, tenant_config
from serve_app.identity.principal import Principal

LATELY_S = 600.0
MOST = 10_000
"""Tenants that are remembered; a token's issuer may name any number."""


class Weights:
    """`now` is in seconds of any monotonic clock."""

    def __init__(self, tenants: Mapping[str, TenantConfig]) -> None:
        self._tenants = tenants
        self._named = {name: it.weight for name, it in tenants.items() if name != DEFAULT}
        self._asked: dict[str, float] = {}
        """When each tenant last asked for something, the latest last."""

    def of(self, tenant: str) -> float:
        return tenant_config(self._tenants, tenant).weight

    def payer(self, caller: Principal) -> Payer:
        return Payer(caller.tenant, self.of(caller.tenant))

    def asks(self, tenant: str, now: float) -> None:
        self._asked.pop(tenant, None)
        self._asked[tenant] = now
        while len(self._asked) > MOST or next(iter(self._asked.values())) < now - LATELY_S:
            del self._asked[next(iter(self._asked))]

    def share(self, tenant: str) -> float:
        """Of the tenant among all that count, itself included; above 0, and 1 if it is alone."""
        asked = {name: self.of(name) for name in (*self._asked, tenant)}
        weights = {**self._named, **asked}
        return weights[tenant] / sum(weights.values())
