"""Counts what is used, by tenant and key. Pure: it only adds in memory.

Sessions, routes and conversations add; the limits of a day follow; the ledger writes the sums down.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from serve_app.identity.principal import Principal

MOST_SUMS = 50_000
"""In memory. Beyond it, what is used is counted for the tenant, with "" as the key."""

LONGEST = 80
"""Name of a tenant or key, as the database has room for."""


class Counted(StrEnum):
    """What is counted, by its name in the database and in answers."""

    AUDIO = "audio_seconds"
    """Heard, silence too."""
    CHARACTERS = "characters"
    """Spoken."""
    TOKENS = "tokens"
    """Read and written by the chat engine, as it reports them."""
    JOBS = "jobs"
    REQUESTS = "requests"

    __hash__ = str.__hash__
    """Enum's own is many times slower, and each amount is looked up several times."""


class Entry(NamedTuple):
    """What a sum is of."""

    day: int
    """Days since 1970-01-01, UTC."""
    tenant: str
    key: str
    what: Counted


Follower = Callable[[Principal, Counted, float], None]
"""Gets whose, what and how much. Must be quick and must not raise."""


class Meter:
    """The sums of one process: of each day, from its begin or that of the process."""

    def __init__(self, today: Callable[[], int]) -> None:
        """`today`: the day in UTC, as in `Entry`."""
        self._today = today
        self._day = 0
        self._sums: dict[Entry, float] = {}
        self._unwritten: dict[Entry, None] = {}
        self._followers: list[Follower] = []

    @property
    def day(self) -> int:
        """Today; a clock that is set back does not open a day again."""
        self._day = max(self._day, self._today())
        return self._day

    def follow(self, follower: Follower) -> None:
        """Call it with each amount that is added."""
        self._followers.append(follower)

    def add(self, who: Principal, what: Counted, amount: float) -> None:
        """Amounts only grow: what is counted stays counted."""
        if amount <= 0:
            return
        entry = self._entry(Entry(self.day, who.tenant[:LONGEST], who.key[:LONGEST], what))
        self._sums[entry] = self._sums.get(entry, 0.0) + amount
        self._unwritten[entry] = None
        for follower in self._followers:
            follower(who, what, amount)

    def _entry(self, wanted: Entry) -> Entry:
        if wanted in self._sums or len(self._sums) < MOST_SUMS:
            return wanted
        return wanted._replace(key="")

    @property
    def is_written(self) -> bool:
        return not self._unwritten

    def of_today(self, tenant: str) -> dict[tuple[str, Counted], float]:
        """A tenant's sums by key and kind."""
        day = self.day
        return {
            (entry.key, entry.what): amount
            for entry, amount in self._sums.items()
            if entry.day == day and entry.tenant == tenant
        }

    # For the ledger.

    def unwritten(self) -> dict[Entry, float]:
        """The sums that have changed since they were last written."""
        return {entry: self._sums[entry] for entry in self._unwritten}

    def wrote(self, written: Mapping[Entry, float]) -> None:
        """These sums are in the database. Those of past days are forgotten."""
        for entry, amount in written.items():
            if self._sums[entry] == amount:
                self._unwritten.pop(entry, None)
        self._forget(entry for entry in self._sums if entry.day < self.day)

    def _forget(self, past: Iterable[Entry]) -> None:
        for entry in [it for it in past if it not in self._unwritten]:
            del self._sums[entry]
