"""What a session or request holds of its limits, from before its handshake until it ends. Pure."""

from collections.abc import Callable

from serve_app.errors import ClientError
from serve_app.limits.day import Reservation


class Lease:
    """Held until it is released. It cannot be lost: whoever ends early, its place is left."""

    __slots__ = ("_places", "_reservations", "end", "id")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self._places: list[dict[Lease, None]] = []
        self._reservations: list[Reservation] = []
        self.end: Callable[[ClientError], None] = lambda _: None
        """Ends what holds it: there is nothing left to use."""

    def hold(self, place: "dict[Lease, None]") -> None:
        place[self] = None
        self._places.append(place)

    def reserve(self, reservation: Reservation) -> None:
        self._reservations.append(reservation)

    def release(self) -> None:
        """Safe to call twice."""
        for place in self._places:
            place.pop(self, None)
        for reservation in self._reservations:
            reservation.settle()
        self._places, self._reservations = [], []
