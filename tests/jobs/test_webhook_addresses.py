"""S7: server-side request forgery through webhooks: every form of an address that is not public."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpcore2 as httpcore
import pytest

from serve_app.errors import ClientError
from serve_app.jobs.webhooks.addresses import AddressRefused, check_url, is_allowed
from serve_app.jobs.webhooks.connecting import connections, target
from tests.jobs.test_webhooks import Receiver, receiver, status

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "240.0.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
]
NEVER = [
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "fe80::1",
    "fe80::1%lo",
    "2606:4700::1%lo",
    "ff02::1",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_the_configuration(address: str) -> None:
    assert not is_allowed(address, False)
    assert is_allowed(address, True)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ClientError, match="not public"):
        check_url(f"http://{host}/", False)


@pytest.mark.parametrize("address", NEVER)
def test_some_are_never_allowed(address: str) -> None:
    assert not is_allowed(address, False) and not is_allowed(address, True)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ClientError):
        check_url(f"http://{host}/", True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_allowed(address, False)


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://017700000001/",
        "http://0/",
        "http://user@hook.example/",
        "http://user:word@hook.example/",
        "http://@127.0.0.1/",
        "http://hook.example@127.0.0.1/",
        "http://hook.example\\@127.0.0.1/",
        "http://127.0.0.1\\@hook.example/",
        "http://127.0.0.1#@hook.example/",
        "http://hook.example:80@127.0.0.1/",
        "http:\\\\127.0.0.1/",
        "http://127.0.0.1\t/",
        "http://hook.example/\r\nX-Injected: 1",
        "http://hook.example/ a",
        "http://１２７.0.0.1/",
        "http://ⓛocalhost/",
        "http://[::1",
        "http://[::1%25lo]/",
        "http://:80/",
        "http:///path",
        "//hook.example/",
        "hook.example",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://hook.example/",
        "http://hook.example:0/",
        "http://hook.example:99999/",
    ],
)
def test_urls_in_disguise(url: str) -> None:
    with pytest.raises(ClientError) as refused:
        check_url(url, False)
    assert refused.value.code == "webhook_refused"


def test_the_url_that_was_checked_is_the_one_that_is_called() -> None:
    url = target(check_url("https://hook.example/a%20b?c=%2F&d=[1]", False))
    assert (url.scheme, url.host, url.port) == (b"https", b"hook.example", None)
    assert url.target == b"/a%20b?c=%2F&d=[1]"
    assert target(check_url("http://hook.example", False)).target == b"/"
    assert target(check_url("http://[2606:4700::1]:81/x", False)).host == b"2606:4700::1"


Found = list[tuple[Any, ...]]


def at(*addresses: str, port: int) -> Found:
    return [(socket.AF_INET, 1, 6, "", (address, port)) for address in addresses]


def finds(*addresses: str, port: int) -> Callable[[str], Found]:
    return lambda _: at(*addresses, port=port)


def call(
    url: str, allow_private: bool, lookup: Callable[[str], Found] | None = None, times: int = 1
) -> int:
    """The status of the last answer, with names resolved by `lookup`."""

    async def go() -> int:
        loop: Any = asyncio.get_running_loop()
        if lookup:

            async def getaddrinfo(host: Any, *_: Any, **__: Any) -> Found:
                return lookup(host if isinstance(host, str) else host.decode())

            loop.getaddrinfo = getaddrinfo
        async with connections(allow_private, 2) as pool:
            for _ in range(times):
                to = target(check_url(url, allow_private))
                async with pool.stream("POST", to, content=b"{}") as answer:
                    found: int = answer.status
        return found

    return asyncio.run(go())


def port_of(hook: Receiver) -> int:
    return int(hook.server.server_address[1])


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """The name is asked for once: a second answer, from who rebinds it, is of no use."""
    with receiver(status(204)) as hook:
        port, asked = port_of(hook), []

        def lookup(host: str) -> Found:
            asked.append(host)
            return at("127.0.0.1", port=port)

        assert call(f"http://hook.example:{port}/a", True, lookup) == 204
        assert asked == ["hook.example"]
        assert hook.calls[0][0]["host"] == f"hook.example:{port}"


def test_a_name_with_one_private_address_is_refused_whole() -> None:
    with receiver(status(204)) as hook:
        port = port_of(hook)
        for addresses in (("93.184.216.34", "127.0.0.1"), ("127.0.0.1",), ("::1",), ()):
            with pytest.raises(AddressRefused):
                call(f"http://hook.example:{port}/", False, finds(*addresses, port=port))
        assert not hook.calls


def test_a_name_that_is_rebound_between_two_calls_is_refused() -> None:
    """Each connection is checked, also one of a pool that has been used."""
    with receiver(status(204, connection="close")) as hook:
        port = port_of(hook)
        answers = iter((at("127.0.0.1", port=port), at("169.254.169.254", port=port)))
        with pytest.raises(AddressRefused):
            call(f"http://hook.example:{port}/", True, lambda _: next(answers), times=2)
        assert len(hook.calls) == 1


def test_a_socket_that_leads_elsewhere_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if something between us and the network changed the address."""
    with receiver(status(204)) as elsewhere:
        port = port_of(elsewhere)
        really = httpcore.AnyIOBackend.connect_tcp

        async def diverted(self: Any, host: str, port: int, *_: Any) -> Any:
            return await really(self, "127.0.0.1", port)

        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", diverted)
        for allow_private in (False, True):
            with pytest.raises(AddressRefused, match="another address"):
                found = finds("93.184.216.34", port=port)
                call(f"http://hook.example:{port}/", allow_private, found)
        assert not elsewhere.calls


def test_the_next_address_is_tried() -> None:
    with receiver(status(204)) as hook:
        found = finds("127.0.0.99", "127.0.0.1", port=port_of(hook))
        assert call(f"http://hook.example:{port_of(hook)}/", True, found) == 204


def test_no_redirect_is_followed() -> None:
    with receiver(status(200)) as inside:
        for code in (301, 302, 303, 307, 308):
            with receiver(status(code, location=inside.url)) as hook:
                assert call(hook.url, True) == code
                assert len(hook.calls) == 1
        assert not inside.calls


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(status(500)) as proxy, receiver(status(204)) as hook:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert call(hook.url, True) == 204
        assert not proxy.calls


def test_endless_headers_end() -> None:
    def answer(handler: Any) -> None:
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(10_000):
                handler.wfile.write(b"x: " + b"y" * 1000 + b"\r\n")
        except OSError:
            return  # hung up

    with receiver(answer) as hook, pytest.raises(httpcore.ProtocolError, match="too"):
        call(hook.url, True)
