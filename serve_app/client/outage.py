"""When to try to connect again, and when to give up. Pure, but for its dice."""

from serve_app.backoff import full_jitter_s
from serve_app.client.continuity import TRANSIENT
from serve_app.client.errors import GaveUp, HandshakeRefused, SessionFailed, TranscriptionError

BASE_S, LONGEST_S = 0.5, 5.0
FULL = (429, 503)


class Outage:
    """The time since the session last went well. `began` is in seconds of any clock."""

    def __init__(self, began: float, patience_s: float) -> None:
        self.began = began
        self._patience_s = patience_s
        self._attempts = 0

    def wait_s(self) -> float:
        """Before the next attempt; before the first one too, because others lost the server at the
        same moment."""
        self._attempts += 1
        return full_jitter_s(BASE_S, self._attempts, LONGEST_S)

    def wait_after_s(self, error: TranscriptionError, now: float, known: bool) -> float:
        """Before another attempt, because of `error`; raises it where none would help.

        `known`: the server has served this session before, so it will come back.
        """
        if not _passes(error, known):
            raise error
        wait_s = self.wait_s()
        if isinstance(error, HandshakeRefused):
            wait_s += error.retry_after_s
        if now + wait_s - self.began > self._patience_s:
            raise GaveUp(f"no connection for {now - self.began:.0f} s: {error}") from error
        return wait_s


def _passes(error: TranscriptionError, known: bool) -> bool:
    match error:
        case HandshakeRefused():
            return error.status in FULL or (known and error.status >= 500)
        case SessionFailed():
            return error.code in TRANSIENT
        case _:
            return known
