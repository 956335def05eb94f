"""Who asks, and for what. Pure.

A principal is made by the `Gate`, once for each request or connection, and comes with all that is
done for it; nothing else knows a tenant by name.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request

from serve_app.errors import ClientError


class Scope(StrEnum):
    """What a key may be used for."""

    TRANSCRIBE = "transcribe"
    SPEAK = "speak"
    CHAT = "chat"
    REALTIME = "realtime"
    JOBS = "jobs"
    ADMIN = "admin"


ALL = frozenset(Scope)
USER = ALL - {Scope.ADMIN}
"""Of a key of which nobody has said more: `admin` is for all tenants."""


@dataclass(frozen=True, slots=True)
class Principal:
    tenant: str
    """Owns jobs, files, histories, usage and cached results; others do not see them."""
    key: str = ""
    """The id of the key, or the subject of the token, that was shown; "" where none is needed."""
    scopes: frozenset[Scope] = ALL
    expires: float | None = None
    """When the token that was shown expires, in seconds since 1970; None for a key, whose end is
    told to those who follow (`Ended`)."""

    def has_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


Ended = Callable[[Collection[str]], None]
"""Gets the ids of keys that are not valid any more, or not in the same way."""

EVERYBODY = Principal("default")
"""Where no key is needed."""


def caller_of(request: Request) -> Principal:
    """Whom the gate has let in. Raises `ClientError` where it has let in anybody."""
    caller: Principal | None = request.scope.get("caller")
    if caller is None:
        raise ClientError("missing_api_key", "this needs a key")
    return caller


Caller = Annotated[Principal, Depends(caller_of)]
"""A route's parameter."""
