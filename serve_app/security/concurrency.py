"""Limits on concurrent work; what exceeds them is refused, not queued."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.admission.weights import Weights
from serve_app.errors import ClientError
from serve_app.limits.settings import TenantSettings


class ConcurrencyLimit:
    """`code` and `what` describe what is refused. `retry_after_s` is called at each refusal,
    because the setting may change; `admit` before each use, with the tenant, and may refuse it,
    too. By `weights` a tenant that has more than its share leaves some to others."""

    def __init__(
        self,
        limit: int,
        code: str,
        what: str,
        retry_after_s: Callable[[], int],
        admit: Callable[[str], None] = lambda tenant: None,
        weights: Weights | None = None,
    ) -> None:
        self._limit = limit
        self._weights = weights or Weights(TenantSettings({}))
        self._held: Counter[str] = Counter()
        self._code = code
        self._what = what
        self._retry_after_s = retry_after_s
        self._admit = admit

    @property
    def in_use(self) -> int:
        return self._held.total()

    def check(self, tenant: str) -> None:
        """Raises `ClientError` when none is free."""
        if not self._weights.has_room(tenant, self._held, self._limit):
            raise ClientError(
                self._code,
                f"too many {self._what} in progress (limit {self._limit}); retry later",
                self._retry_after_s(),
            )

    @contextmanager
    def slot(self, tenant: str) -> Iterator[None]:
        """Raises `ClientError` when none is free."""
        self.check(tenant)
        self._admit(tenant)
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._held -= Counter([tenant])  # which forgets those that hold none
