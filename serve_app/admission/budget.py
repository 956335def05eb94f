"""Whether one more session fits. Pure.

What is used is measured, and what a session costs is learned from it: a guess at first. Sessions
that are too new to show in the measurements are counted at their cost. So a thousand who come at
once are counted before any of them has sent audio.

What sessions do not explain is the machine's base load. While there are few sessions, the smallest
of the last ten seconds counts: a program that starts is no reason to refuse anybody then.
"""

from collections import deque
from typing import NamedTuple


class Shares(NamedTuple):
    """Of what sessions can run out of, from 0 to 1. Also the cost of one session."""

    node: float
    """All processors of this machine, without processes of low priority."""
    loop: float
    """The event loop of this replica: one thread."""
    models: float
    """The busiest model replica that this one talks to."""


NOTHING, EVERYTHING = Shares(0.0, 0.0, 0.0), Shares(1.0, 1.0, 1.0)

LEARN_FROM = 20
"""With fewer sessions, what else happens on the machine would look like their cost."""

LEARN_DEARER, LEARN_CHEAPER = 0.1, 0.002
"""The weights of a measurement: sessions that are silent for a while cost little, and may all speak
the next moment."""

CHEAPER, DEARER = 1 / 2, 100.0
"""How far what is learned may be from the guess."""

BASE_S, FULLER_BASE_S = 10.0, 1.0
"""Until so much has been measured the base load counts as none: that of a start is not typical."""


class Budget:
    """`share` of everything may be used; `guess` is what a session costs until it is measured.
    `now` is in seconds of any monotonic clock."""

    def __init__(self, share: float, guess: Shares) -> None:
        self._share = share
        self._guess = self.cost = guess
        self.used = self._base = NOTHING
        self._idle = EVERYTHING
        self._bases: deque[tuple[float, Shares]] = deque()
        self._seen = 0

    def measured(self, now: float, used: Shares, sessions: int, unseen: int) -> None:
        """`used` by `sessions`, of which `unseen` are too new to show in it."""
        self.used, self._seen = used, max(0, sessions - unseen)
        if not sessions:
            self._idle = Shares(*map(min, used, _towards(self._idle, used, LEARN_CHEAPER)))
        elif self._seen >= LEARN_FROM:
            self._learn(used, sessions, at_least=unseen > 0)
        if not self._bases:
            self._bases.append((now, NOTHING))
        self._bases.append((now, _less(used, self.cost, self._seen)))
        while self._bases[0][0] < now - BASE_S:
            self._bases.popleft()
        since = now - (BASE_S if self._seen < LEARN_FROM else FULLER_BASE_S)
        recent = [base for at, base in self._bases if at >= since]
        self._base = Shares(*map(min, zip(*recent, strict=True)))

    def has_room(self, unseen: int, part: float = 1.0) -> bool:
        """For one more beside `unseen` admitted ones, in this part of what may be used."""
        expected = self._seen + unseen + 1
        return all(
            base + expected * cost <= min(1.0, self._share * part)
            for base, cost in zip(self._base, self.cost, strict=True)
        )

    def _learn(self, used: Shares, sessions: int, at_least: bool) -> None:
        """`at_least`: not all that they cost shows yet."""
        each = [(it - idle) / sessions for it, idle in zip(used, self._idle, strict=True)]
        new = self._bounded(Shares(*each))
        dearer = Shares(*map(max, _towards(self.cost, new, LEARN_DEARER), self.cost))
        self.cost = dearer if at_least else _towards(dearer, new, LEARN_CHEAPER)

    def _bounded(self, cost: Shares) -> Shares:
        each = zip(cost, self._guess, strict=True)
        return Shares(*(min(max(it, guess * CHEAPER), guess * DEARER) for it, guess in each))


def _less(used: Shares, cost: Shares, sessions: int) -> Shares:
    return Shares(*(it - sessions * each for it, each in zip(used, cost, strict=True)))


def _towards(known: Shares, new: Shares, weight: float) -> Shares:
    return Shares(*(old + weight * (it - old) for old, it in zip(known, new, strict=True)))
