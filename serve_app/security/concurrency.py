"""Limits on concurrent work; what exceeds them is refused, not queued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import ClientError


class ConcurrencyLimit:
    """`code` and `what` describe what is refused. `retry_after_s` is called at each refusal,
    because the setting may change; `admit` before each use, and may refuse it, too."""

    def __init__(
        self,
        limit: int,
        code: str,
        what: str,
        retry_after_s: Callable[[], int],
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        self._free = self._limit = limit
        self._code = code
        self._what = what
        self._retry_after_s = retry_after_s
        self._admit = admit

    @property
    def in_use(self) -> int:
        return self._limit - self._free

    def check(self) -> None:
        """Raises `ClientError` when none is free."""
        if not self._free:
            raise ClientError(
                self._code,
                f"too many {self._what} in progress (limit {self._limit}); retry later",
                self._retry_after_s(),
            )

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Raises `ClientError` when none is free."""
        self.check()
        self._admit()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
