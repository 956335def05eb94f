"""What a session or request holds of its limits, from before its handshake until it ends. Pure."""

from collections.abc import Callable

from serve_app.errors import ClientError
from serve_app.limits.day import Reservation


class Lease:
    """Held until it is released. It cannot be lost: whoever ends early, its place is left."""

    __slots__ = ("_places", "_reservations", "end", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._places: list[dict[Lease, None]] = []
        self._reservations: list[Reservation] = []
        self.end: Callable[[ClientError], None] | None = None
        """Ends what holds it; called once."""

    def hold(self, place: "dict[Lease, None]") -> None:
        place[self] = None
        self._places.append(place)

    def reserve(self, reservation: Reservation) -> None:
        self._reservations.append(reservation)

    def refuse(self, error: ClientError) -> None:
        """It is one too many, or there is nothing left to use. It is held until it has ended."""
        end, self.end = self.end, None
        if end:
            end(error)

    def release(self) -> None:
        """Safe to call twice."""
        for place in self._places:
            place.pop(self, None)
        for reservation in self._reservations:
            reservation.settle()
        self._places, self._reservations = [], []
