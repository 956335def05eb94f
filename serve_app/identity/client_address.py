"""Whose address a request comes from. Pure."""

import ipaddress
from collections.abc import Mapping

HEADER = "x-forwarded-for"
"""HAProxy replaces what the client wrote there by the one address that it has decided on, from the
connection and `network.trusted_proxies` (`cluster/addresses.py`)."""


def client_address(headers: Mapping[str, str], peer: str) -> str:
    """The client's IP address, an IPv4 one never in its IPv6 form.

    `peer` is the other end of the connection, and the client where HAProxy is not between: on the
    TCP port, which has no headers. Only HAProxy reaches the port of an ingress replica.
    """
    return _plain(headers.get(HEADER, "")) or _plain(peer) or peer


def _plain(address: str) -> str:
    """In its shortest form; "" if it is none."""
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        without_scope = ipaddress.IPv6Address(int(parsed))
        return str(without_scope.ipv4_mapped or without_scope)
    return str(parsed)
