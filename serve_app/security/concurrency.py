"""How much is worked on at once; more is refused rather than queued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import ClientError


class ConcurrencyLimit:
    """`code` and `what` say what is refused. `retry_after_s` is asked at each refusal: it may
    change while the server runs."""

    def __init__(self, places: int, code: str, what: str, retry_after_s: Callable[[], int]) -> None:
        self._free = self._all = places
        self._code = code
        self._what = what
        self._retry_after_s = retry_after_s

    def check(self) -> None:
        """Raises `ClientError` when none is free."""
        if not self._free:
            raise ClientError(
                self._code, f"{self._all} {self._what} are at work already", self._retry_after_s()
            )

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Raises `ClientError` when none is free."""
        self.check()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
