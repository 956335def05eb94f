"""Which addresses are served on the TCP port."""

import pytest

from serve_app.security.served_addresses import ServedAddresses

HERE = "192.0.2.9"


@pytest.mark.parametrize(
    ("client", "served"),
    [
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("2001:db8::5", True),
        ("192.0.2.129", False),
        ("::ffff:192.0.2.129", False),
        ("2001:db8:bad::1", False),
        ("198.51.100.1", False),
        ("fe80::1%eth0", False),
        ("127.0.0.1", True),
        ("::1", True),
        (HERE, True),
    ],
)
def test_only_allowed_networks_are_served(client: str, served: bool) -> None:
    allow = ("192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32")
    addresses = ServedAddresses(allow, ("192.0.2.128/25", "2001:db8:bad::/48"))
    assert addresses.serves(client, HERE) is served


def test_without_a_list_all_are_served() -> None:
    assert ServedAddresses((), ()).serves("198.51.100.1", HERE)
    assert not ServedAddresses((), ("0.0.0.0/0",)).serves("198.51.100.1", HERE)
