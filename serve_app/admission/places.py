"""Places that are reserved or taken, but do not show yet in what is measured. Pure."""

from collections import Counter
from collections.abc import Callable

from serve_app.limits.lease import Lease

HANDSHAKE_S = 10.0
"""A reserved place is free again when the handshake has not been completed by then."""

UNSEEN_S = 2.0
"""After this a session shows in what is measured, if it sends audio."""

SILENT_S = 10.0
"""The same for a session that sends none."""

HEARD_S = 1.0
"""So much audio counts as sending some."""


class Place:
    """One session's or request's, from before its handshake until it ends."""

    __slots__ = ("heard_s", "lease", "since", "tenant")

    def __init__(self, now: float, tenant: str) -> None:
        self.since = now
        self.tenant: str | None = tenant
        """None once it has been left."""
        self.heard_s: Callable[[], float] = lambda: HEARD_S
        """How much audio it has sent."""
        self.lease: Lease | None = None
        """What it holds of its tenant's limits."""

    def release(self) -> None:
        if self.lease:
            self.lease.release()


class Places:
    """Those of one ingress replica. `now` is in seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._reserved: dict[Place, None] = {}
        self._unseen: dict[Place, None] = {}
        self.held: Counter[str] = Counter()
        """The places of each tenant that has some."""

    @property
    def reserved(self) -> int:
        return len(self._reserved)

    @property
    def unseen(self) -> int:
        """Reserved or taken, and not in what is measured."""
        return len(self._reserved) + len(self._unseen)

    def reserve(self, now: float, tenant: str) -> Place:
        place = Place(now, tenant)
        self._reserved[place] = None
        self.held[tenant] += 1
        return place

    def take(self, place: Place, now: float, heard_s: Callable[[], float] | None = None) -> bool:
        """What the place was reserved for has begun; False if it came too late."""
        if place not in self._reserved:
            return False
        del self._reserved[place]
        self._unseen[place] = None
        place.since, place.heard_s = now, heard_s or place.heard_s
        return True

    def leave(self, place: Place) -> None:
        """Safe to call twice."""
        self._reserved.pop(place, None)
        self._unseen.pop(place, None)
        self._give_back(place)
        place.release()

    def pass_by(self, now: float) -> None:
        """A place, for a moment, for work that is no session: no tenant holds it."""
        place = self.reserve(now, "")
        self.take(place, now)
        self._give_back(place)

    def _give_back(self, place: Place) -> None:
        if place.tenant is not None:
            self.held[place.tenant] -= 1
            if not self.held[place.tenant]:
                del self.held[place.tenant]
            place.tenant = None

    def sweep(self, now: float) -> None:
        """Forget those that show now, and those whose handshake was not completed."""
        for place in [it for it in self._reserved if now - it.since > HANDSHAKE_S]:
            self.leave(place)
        for place in [it for it in self._unseen if _shows(it, now - it.since)]:
            del self._unseen[place]


def _shows(place: Place, age_s: float) -> bool:
    return age_s > SILENT_S or (age_s > UNSEEN_S and place.heard_s() >= HEARD_S)
