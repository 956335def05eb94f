"""Which addresses are served where HAProxy is not between. Pure."""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ServedAddresses:
    """As HAProxy decides it (`cluster/addresses.py`). An empty `allow` allows all."""

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._allow = [ipaddress.ip_network(it) for it in allow]
        self._deny = [ipaddress.ip_network(it) for it in deny]

    def serves(self, client: str, here: str) -> bool:
        """`here`: the address that the client has connected to. The machine itself always may."""
        address = _address(client)
        if address.is_loopback or address == _address(here):
            return True
        allowed = not self._allow or _within(address, self._allow)
        return allowed and not _within(address, self._deny)


def _address(text: str) -> Address:
    """IPv4 never in its IPv6 form, and without a zone."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
