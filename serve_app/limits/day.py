"""What is used of a day's quota, and what is reserved of it. Pure.

What is used only grows, in a day. It is counted here as it happens; what other processes have used
comes with the sums that they have written, so it is known a little later.
"""


class Day:
    """One kind of use by one tenant or key. Amounts are in its unit, never negative."""

    __slots__ = ("_day", "_used", "elsewhere", "reserved")

    def __init__(self) -> None:
        self._day = 0
        self._used = 0.0
        self.reserved = 0.0
        """By what is open here."""
        self.elsewhere = 0.0
        """Reserved by other replicas."""

    def used(self, day: int) -> float:
        """`day`: today, in days since any day."""
        if day > self._day:
            self._day, self._used = day, 0.0
        return self._used

    def add(self, amount: float, day: int) -> None:
        self._used = self.used(day) + amount

    def observed(self, used: float, day: int) -> None:
        """All processes together have used so much, at least."""
        known = self.used(day)
        self._used = max(known, used) if day == self._day else known

    def free(self, most: int, day: int) -> float:
        """What is neither used nor reserved."""
        return max(0.0, most - self.used(day) - self.reserved - self.elsewhere)

    def left(self, most: int, day: int) -> float:
        """What is not used."""
        return max(0.0, most - self.used(day))


class Reservation:
    """A part of a day's quota, held until it is settled."""

    __slots__ = ("_amount", "_day")

    def __init__(self, day: Day, amount: float) -> None:
        self._day = day
        self._amount = amount
        day.reserved += amount

    def settle(self) -> None:
        """What was used is counted by then. Safe to call twice."""
        self._day.reserved = max(0.0, self._day.reserved - self._amount)
        self._amount = 0.0
