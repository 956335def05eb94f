"""Checks the addresses of webhooks: only public ones are allowed.

The name is resolved once and the connection goes to the checked address, so that DNS rebinding has
no effect. OWASP, "Server-Side Request Forgery
Prevention".
"""

import asyncio
import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from serve_app.errors import ClientError

PORTS = {"http": 80, "https": 443}


class AddressRefused(Exception):
    """The webhook's address is not allowed or not known."""


class Target(NamedTuple):
    """`url` has the address instead of the name; `host` is the name, for `Host` and for TLS."""

    url: str
    host: str
    name: str


def check_url(url: str, allow_private: bool) -> SplitResult:
    """Checks that need no DNS. Raises `ClientError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ClientError("webhook_refused", "the webhook is not a valid URL") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username or port == 0:
        raise ClientError(
            "webhook_refused",
            "a webhook must be an http or https URL with a host and without a user name",
        )
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return parts
    if not allow_private and not _public(str(address)):
        raise ClientError("webhook_refused", "the webhook's address is not public")
    return parts


async def resolve(url: str, allow_private: bool) -> Target:
    """Raises `AddressRefused`."""
    try:
        parts = check_url(url, allow_private)
    except ClientError as error:
        raise AddressRefused(str(error)) from error
    name, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressRefused("the host name of the webhook cannot be resolved") from error
    addresses = [str(info[4][0]) for info in found]
    if not addresses or not (allow_private or all(map(_public, addresses))):
        raise AddressRefused("the webhook's host name has an address that is not public")
    address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    host = name if parts.port is None else f"{name}:{port}"
    return Target(f"{parts.scheme}://{address}:{port}{path}", host, name)


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (mapped is None or mapped.is_global)
