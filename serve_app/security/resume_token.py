"""Resume tokens: what a client brings to any ingress to go on with its session. Pure.

A token says everything that the new connection must know, so the server keeps nothing. It is a
bearer token: who has it can go on with the session, until it expires.
"""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from serve_app.errors import ClientError
from serve_app.live.resume_point import ResumePoint
from serve_app.security.signing import InvalidToken, SigningKeys

LIVE = "voxray/live"
CONVERSATION = "voxray/conversation"
MAX_CHARS = 64_000
MAX_START_BYTES = 1 << 20

MAX_START_CHARS = 40_000
"""Of a packed `start`: the token of a longer one would be refused."""


class Continued(NamedTuple):
    """A session, as its token describes it."""

    session_id: str
    """What the client calls it."""
    origin: str
    """What its first connection was called: unique, as the client's name is not."""
    epoch: int
    """Connections before this one."""
    began: int
    """In seconds since 1970."""
    start: str = ""
    """The fields of its `start`, packed."""


class ResumeTokens:
    """One tenant's tokens, for one purpose."""

    def __init__(
        self,
        keys: SigningKeys,
        tenant: str,
        lifetime_s: float,
        clock: Callable[[], float],
        purpose: str = LIVE,
    ) -> None:
        self._keys = keys
        self._purpose = purpose
        self.tenant = tenant
        self._lifetime_s = lifetime_s
        self.clock = clock
        """Seconds since 1970."""

    def mint(self, session: Continued, point: ResumePoint = ResumePoint()) -> str:  # noqa: B008
        claims = {"tenant": self.tenant, "session": session, "point": point}
        return self._keys.sign(self._purpose, int(self.clock() + self._lifetime_s), claims)

    def opened(self, token: object) -> tuple[Continued, ResumePoint]:
        """Raises `ClientError` for a token that is not ours, of another tenant, or too old."""
        if not isinstance(token, str) or len(token) > MAX_CHARS:
            raise _refused()
        try:
            claims = self._keys.verified(self._purpose, token, self.clock())
            found = Continued(*claims["session"]), ResumePoint(*claims["point"])
        except (InvalidToken, KeyError, TypeError) as error:
            raise _refused() from error
        if claims.get("tenant") != self.tenant:
            raise _refused()
        return found


def packed(start: dict[str, Any]) -> str:
    """Short, because it is in each token; "" if there is nothing."""
    raw = zlib.compress(json.dumps(start).encode(), 9) if start else b""
    return base64.urlsafe_b64encode(raw).decode()


def unpacked(start: str) -> dict[str, Any]:
    """Only of a token that was signed here."""
    if not start:
        return {}
    raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(start), MAX_START_BYTES)
    fields: dict[str, Any] = json.loads(raw)
    return fields


def _refused() -> ClientError:
    reason = "the resume token is invalid or has expired: start a new session"
    return ClientError("resume_refused", reason, param="start.resume")
