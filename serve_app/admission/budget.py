"""Whether one more session fits. Pure.

What is used now is measured. A session that has just been admitted does not show in that yet, so
its cost is added: a guess at first, then what sessions turned out to cost. So a thousand who come
at once are counted before any of them has sent audio.
"""

from typing import NamedTuple


class Shares(NamedTuple):
    """Of what sessions can run out of, from 0 to 1. Also the cost of one session."""

    node: float
    """All processors of this machine, without processes of low priority."""
    loop: float
    """The event loop of this replica: one thread."""
    models: float
    """The busiest model replica that this one talks to."""


NOTHING = Shares(0.0, 0.0, 0.0)

LEARN_FROM = 20
"""With fewer sessions, what else happens on the machine would look like their cost."""

LEARN = 0.1
"""The weight of a new measurement."""

CHEAPER, DEARER = 1 / 4, 100.0
"""How far what is learned may be from the guess."""


class Budget:
    """`share` of everything may be used; `guess` is what a session costs until it is measured."""

    def __init__(self, share: float, guess: Shares) -> None:
        self._share = share
        self._guess = self.cost = guess
        self._idle = self._used = NOTHING

    @property
    def used(self) -> Shares:
        return self._used

    def measured(self, used: Shares, sessions: int, unseen: int) -> None:
        """`used` by `sessions`, of which `unseen` are too new to show in it."""
        self._used = used
        if not sessions:
            self._idle = _towards(self._idle, used)
        elif not unseen and sessions >= LEARN_FROM:
            each = [(now - idle) / sessions for now, idle in zip(used, self._idle, strict=True)]
            self.cost = _towards(self.cost, self._bounded(Shares(*each)))

    def has_room(self, unseen: int) -> bool:
        """For one more beside `unseen` admitted ones."""
        return all(
            used + (unseen + 1) * cost <= self._share
            for used, cost in zip(self._used, self.cost, strict=True)
        )

    def _bounded(self, cost: Shares) -> Shares:
        each = zip(cost, self._guess, strict=True)
        return Shares(*(min(max(it, guess * CHEAPER), guess * DEARER) for it, guess in each))


def _towards(known: Shares, new: Shares) -> Shares:
    return Shares(*(old + LEARN * (it - old) for old, it in zip(known, new, strict=True)))
