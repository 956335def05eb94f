"""One connection to a session at a time: the newest. Pure.

A client that comes back may leave a connection behind that its server still believes in. Whoever
continues the session closes it, here at once, and at the other ingress replicas by telling them.
"""

from collections.abc import Callable
from typing import NamedTuple

End = Callable[[str], None]
"""Ends a connection, with an error code."""

REPLACED = "session_resumed"

MOST_REMEMBERED = 10_000
"""Sessions. Of older ones only the token says how much they have heard, which may be less."""


class Claim(NamedTuple):
    """A connection continues a session; of two such claims the greater one is the newer."""

    origin: str
    """What the session's first connection was called."""
    epoch: int
    """Connections before this one, as its token says."""
    at: float
    """Seconds since 1970; decides between two that came with the same token."""


class SessionElsewhere(NamedTuple):
    """What an ingress replica knows of a session that somebody continues."""

    origin: str
    newer: bool = False
    """A newer connection than the one that was claimed is there."""
    heard: int = 0
    """Samples that older connections there have received."""

    def and_of(self, other: "SessionElsewhere") -> "SessionElsewhere":
        """What two replicas know of a session."""
        return SessionElsewhere(
            self.origin, self.newer or other.newer, max(self.heard, other.heard)
        )


class Fence:
    """The connections of this ingress replica."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Claim, End]] = {}
        self._heard: dict[str, int] = {}
        """Samples of sessions whose connections have ended, by origin; the latest last."""

    def enter(self, claim: Claim, end: End) -> bool:
        """Whether this is the newest connection to its session; if so, an older one ends."""
        if newest := self.admits(claim):
            self._open[claim.origin] = claim, end
        return newest

    def leave(self, claim: Claim) -> None:
        """Of a connection that has ended; another one may have taken its place."""
        if claim.origin in self._open and self._open[claim.origin][0] == claim:
            del self._open[claim.origin]

    def remember(self, origin: str, heard: int) -> None:
        """A connection that ends has received so many samples of its session."""
        if heard:
            self._heard[origin] = max(heard, self._heard.pop(origin, 0))
        if len(self._heard) > MOST_REMEMBERED:
            del self._heard[next(iter(self._heard))]

    def heard(self, origin: str) -> int:
        """Samples that connections which have ended here had received."""
        return self._heard.get(origin, 0)

    def answer(self, claim: Claim) -> SessionElsewhere:
        """To a connection elsewhere; an older one here ends."""
        newer = not self.admits(claim)
        return SessionElsewhere(claim.origin, newer, self.heard(claim.origin))

    def admits(self, claim: Claim) -> bool:
        """Of a connection here or elsewhere: no newer one is here, and an older one ends."""
        held, end = self._open.get(claim.origin, (claim, None))
        if end and held < claim:
            del self._open[claim.origin]
            end(REPLACED)
        return held <= claim
