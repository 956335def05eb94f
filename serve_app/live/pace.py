"""Which partials a session sends, and whether it asks for final words at a pause, at each quality
level. Pure."""

from typing import NamedTuple

from serve_app.admission.ladder import Level


class Pace(NamedTuple):
    unchanged: bool = True
    """Send a partial with the same words as the one before."""
    every_s: float = 0.0
    """The least time between two partials of an utterance."""
    eager: bool = True
    """Ask for the final words at a pause, so that a reply can begin early."""


def pace_at(level: int) -> Pace:
    if level >= Level.FEWEST:
        return Pace(False, 1.0, False)
    if level >= Level.FEWER_PARTIALS:
        return Pace(False, 0.3)
    return Pace(level < Level.CHANGED_PARTIALS)
