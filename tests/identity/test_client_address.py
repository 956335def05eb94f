"""Whose address a request comes from."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from serve_app.identity.client_address import client_address

HAPROXY = "127.0.0.1"


@given(st.ip_addresses())
def test_it_is_what_haproxy_says(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    said = client_address({"x-forwarded-for": str(address)}, HAPROXY)
    mapped = getattr(address, "ipv4_mapped", None)
    assert said == str(mapped or address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_has_one_form(address: ipaddress.IPv4Address) -> None:
    for form in (str(address), f"::ffff:{address}", f" {address} "):
        assert client_address({"x-forwarded-for": form}, HAPROXY) == str(address)
        assert client_address({}, form) == str(address)


@given(st.text(max_size=60))
def test_anything_else_is_no_address(text: str) -> None:
    """So no log line and no table gets what a client has made up."""
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        assert client_address({"x-forwarded-for": text}, "192.0.2.7") == "192.0.2.7"


def test_the_zone_of_a_link_local_address_is_not_part_of_it() -> None:
    assert client_address({}, "fe80::1%eth0") == "fe80::1"
