"""Which URLs and addresses a webhook may have: only public ones, unless configured. Pure.

OWASP, "Server-Side Request Forgery Prevention". `connecting.py` asks here about the address that is
connected to, whatever the URL says and whatever the name resolved to before.
"""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

from serve_app.errors import ClientError

SCHEMES = ("http", "https")
PLAIN = re.compile(r"[!#-\[\]_a-z~]+", re.IGNORECASE)
r"""A URL's characters: visible ASCII without quotes, \, ^, `, {, | and }, which parsers read
differently."""

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Where the machines of Azure, Alibaba, Oracle, AWS and Google ask for their secrets, besides
169.254.169.254."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """The webhook's address is not allowed or not known."""


def check_url(url: str, allow_private: bool) -> SplitResult:
    """Checks that need no DNS. Raises `ClientError`."""
    parts = _parts(url)
    name = str(parts.hostname)
    if _is_disguised(name):
        raise _refused("write the webhook's IPv4 address as four decimal numbers")
    if _is_address(name) and not is_allowed(name, allow_private):
        raise _refused("the webhook's address is not public")
    return parts


def is_allowed(address: str, allow_private: bool) -> bool:
    """Whether a webhook may go to this IP address. Link-local ones, the metadata of clouds, and
    multicast are never allowed."""
    written = ipaddress.ip_address(address)
    found = _embedded(written) or written
    if getattr(written, "scope_id", None) or found.is_multicast or found.is_unspecified:
        return False
    if found.is_link_local or found in METADATA or str(found) == "255.255.255.255":
        return False
    return allow_private or _is_public(found)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_reserved


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address to which an IPv6 address leads."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused("the webhook is not a valid URL") from error
    if not PLAIN.fullmatch(url):
        raise _refused("a webhook's URL has only visible ASCII characters; encode others")
    if parts.scheme not in SCHEMES or not parts.hostname or "@" in parts.netloc or port == 0:
        reason = "a webhook must be an http or https URL with a host and without a user name"
        raise _refused(reason)
    return parts


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_disguised(name: str) -> bool:
    """Whether a resolver reads it as an IPv4 address although it is not written as one: 127.1,
    2130706433, 0x7f.1, 0177.0.0.1."""
    try:
        socket.inet_aton(name)
    except OSError:
        return False
    return not _is_address(name)


def _refused(reason: str) -> ClientError:
    return ClientError("webhook_refused", reason)
