"""Counts what is used, by tenant and key. Pure: it only adds in memory.

Sessions, routes and conversations add; the limits of a day follow.
"""

from collections.abc import Callable
from enum import StrEnum

from serve_app.identity.principal import Principal


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


Follower = Callable[[Principal, Counted, float], None]
"""Gets whose, what and how much. Must be quick and must not raise."""


class Meter:
    """Of one replica."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        """Call it with each amount that is added."""
        self._followers.append(follower)

    def add(self, who: Principal, what: Counted, amount: float) -> None:
        """`amount` is never negative: what is counted stays counted."""
        for follower in self._followers:
            follower(who, what, amount)
