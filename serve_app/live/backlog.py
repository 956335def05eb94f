"""Events that wait for a client that does not read. Pure.

Of consecutive partials only the newest is kept. Other events are never dropped: when too many of
them wait, the session ends.
"""

from collections import deque

from serve_app.live.events import Close, Event, TranscriptUpdate


class ReaderTooSlow(Exception):
    """Too many events wait for the client."""


class Backlog:
    """A queue of at most `bound` events that must not be dropped."""

    __slots__ = ("_bound", "_events", "dropped")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._events: deque[Event] = deque()
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._events)

    def put(self, event: Event) -> None:
        """Raises `ReaderTooSlow`."""
        if self._events and _is_partial(event) and _is_partial(self._events[-1]):
            self._events[-1] = event
            self.dropped += 1
            return
        if len(self._events) >= self._bound and not isinstance(event, Close):
            raise ReaderTooSlow
        self._events.append(event)

    def take(self) -> Event:
        return self._events.popleft()


def _is_partial(event: Event) -> bool:
    return isinstance(event, TranscriptUpdate) and not event.final
