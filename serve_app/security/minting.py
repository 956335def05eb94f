"""How many client secrets a key may make: they are valid for hours, and nobody stores them."""

import time
from collections import OrderedDict
from collections.abc import Callable

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.limits.window import RequestWindow

MOST_KEYS = 10_000
"""Whose counts are kept; beyond them the one that made none for longest begins again."""


class Minting:
    """Of one ingress replica. `per_minute`: for each key."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str], RequestWindow] = OrderedDict()

    def count(self, caller: Principal) -> None:
        """One more secret. Raises `ClientError` for one too many, which does not count."""
        window, now = self._window((caller.tenant, caller.key)), self._clock()
        if not window.fits(self._most, now):
            wait_s = max(1, window.wait_s(self._most, now))
            reason = f"a key may make {self._most} client secrets a minute; retry in {wait_s} s"
            raise ClientError("rate_limit_exceeded", reason, wait_s)
        window.add(now)

    def _window(self, key: tuple[str, str]) -> RequestWindow:
        window = self._windows.setdefault(key, RequestWindow())
        self._windows.move_to_end(key)
        if len(self._windows) > MOST_KEYS:
            self._windows.popitem(last=False)
        return window
