"""Connects webhooks: to an address that was checked, and to no other.

The name is resolved here, once for each connection, and the address of the socket is compared
before anything is sent: DNS rebinding has no effect. Whatever makes a URL into a host, this is
behind it. No proxy of the environment is used.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import SplitResult

from httpcore2 import (
    URL,
    AnyIOBackend,
    AsyncConnectionPool,
    AsyncNetworkBackend,
    AsyncNetworkStream,
    ConnectError,
    ConnectTimeout,
)

from serve_app.jobs.webhooks.addresses import AddressRefused, is_allowed

CONNECT_S = 3.0
"""For each address of a name."""

MAX_ADDRESSES = 3


class CheckedNetwork(AsyncNetworkBackend):
    """The connections of a pool. Raises `AddressRefused`."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._network = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # as the base class has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception = AddressRefused("the webhook's host name has no address")
        for address in (await self._resolved(host, port))[:MAX_ADDRESSES]:
            try:
                stream = await self._network.connect_tcp(address, port, CONNECT_S)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
                continue
            return await self._checked(stream, address)
        raise failure

    async def _resolved(self, host: str, port: int) -> list[str]:
        """All of a name's addresses; it is refused if one of them is."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise AddressRefused("the host name of the webhook cannot be resolved") from error
        addresses = [str(info[4][0]) for info in found]
        if not all(is_allowed(it, self._allow_private) for it in addresses):
            raise AddressRefused("the webhook's host name has an address that is not public")
        return addresses

    async def _checked(self, stream: AsyncNetworkStream, address: str) -> AsyncNetworkStream:
        peer = ipaddress.ip_address(str(stream.get_extra_info("server_addr")[0]))
        if peer == ipaddress.ip_address(address) and is_allowed(str(peer), self._allow_private):
            return stream
        await stream.aclose()
        raise AddressRefused("the webhook's connection goes to another address")


def connections(allow_private: bool, at_once: int) -> AsyncConnectionPool:
    """Kept by name, not by address, so that a certificate is checked for each name."""
    return AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=at_once,
        keepalive_expiry=5.0,
        network_backend=CheckedNetwork(allow_private),
    )


def target(parts: SplitResult) -> URL:
    """Of the parts that were checked: no second parser sees the URL."""
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    return URL(scheme=parts.scheme, host=str(parts.hostname), port=parts.port, target=path)
