"""Who asks. A principal is made here, once for each request or connection, and comes with all that
is done for it; nothing else knows a tenant by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request


@dataclass(frozen=True, slots=True)
class Principal:
    tenant: str
    """Owns jobs, webhooks and cached results; others do not see them."""


EVERYBODY = Principal("default")


def principal_of(headers: Mapping[str, str]) -> Principal:
    """Of a request's or handshake's headers. There are no keys yet: everybody is one tenant."""
    return EVERYBODY


async def _of_request(request: Request) -> Principal:
    return principal_of(request.headers)


Caller = Annotated[Principal, Depends(_of_request)]
"""A route's parameter."""
