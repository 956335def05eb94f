"""What each tenant has used since the process began, as metrics. `GET /v1/usage` has it by key and
day, of all processes, and exactly.
"""

from collections.abc import Callable

from serve_app.identity.principal import Principal
from serve_app.usage.meter import Counted

MOST_TENANTS = 100
OTHERS = "others"
"""The tenants beyond: there may be any number of them, and each makes new series."""

Of = tuple[str, str]
"""What, and whose."""

Watch = Callable[[Of, Callable[[], float]], None]
"""Gets each new sum, and how to read it."""


class Totals:
    """Follows the meter."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._sums: dict[Of, float] = {}
        self._tenants: set[str] = set()

    def used(self, who: Principal, what: Counted, amount: float) -> None:
        of = (what.value, self._named(who.tenant))
        if of not in self._sums:
            self._sums[of] = 0.0
            self._watch(of, lambda: self._sums[of])
        self._sums[of] += amount

    def _named(self, tenant: str) -> str:
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= MOST_TENANTS:
            return OTHERS
        self._tenants.add(tenant)
        return tenant
