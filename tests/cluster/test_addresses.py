"""Who the client is, whether it may connect and how often, as HAProxy decides it."""

import ipaddress
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.cluster.addresses import MAX_PROXIES, NO_CERTIFICATE, NOT_ALLOWED, TOO_MANY, body
from serve_app.cluster.front import Front
from serve_app.config import Config
from serve_app.errors import ClientError
from tests.answering import Answer, answering
from tests.cluster.test_haproxy import HANDSHAKE, application, haproxy
from tests.fakes import served
from tests.waiting import wait_for

PROXIES = ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8")
TRUSTED = ("10.0.0.1", "10.9.9.9", "::ffff:10.0.0.2", "fd00::1", "127.0.0.9")
FOREIGN = ("192.0.2.1", "198.51.100.7", "::ffff:203.0.113.5", "2001:db8::1", "0.0.0.1", "fe80::1")
NONSENSE = ("unknown", "_secret", "300.1.1.1", "10.0.0", "1.2.3.4.5", "-", "'; drop")

Headers = dict[str, str]


@contextmanager
def echo() -> Iterator[int]:
    """Answers with the headers that it got; its port."""

    class Echo(Answer):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            got = json.dumps({name.lower(): self.headers.get_all(name) for name in self.headers})
            self.send_response(200)
            self.send_header("Content-Length", str(len(got)))
            self.end_headers()
            self.wfile.write(got.encode())

    with answering(Echo) as port:
        yield port


@contextmanager
def front(folder: Path, told: Front) -> Iterator[httpx.Client]:
    with (
        echo() as port,
        haproxy(folder, application(port), front=told) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def seen(client: httpx.Client, headers: list[tuple[str, str]]) -> Headers:
    """The headers that reach the ingress, each of them once."""
    answer = client.get("/v1/models", headers=headers)
    assert answer.status_code == 200, answer.text
    return {name: value for name, (value,) in answer.json().items()}


def is_trusted(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in ipaddress.ip_network(network) for network in PROXIES)


def rightmost_untrusted(chain: list[str], peer: str) -> str:
    """What is right, in other words than HAProxy's."""
    client = peer
    for said in chain[::-1][:MAX_PROXIES]:
        if not is_trusted(client) or said in NONSENSE:
            break
        client = said
    return client


def plain(address: str) -> object:
    ip = ipaddress.ip_address(address)
    return getattr(ip, "ipv4_mapped", None) or ip


def test_the_client_is_the_rightmost_address_that_is_no_trusted_proxy(tmp_path: Path) -> None:
    entry = st.sampled_from((*TRUSTED, *TRUSTED, *FOREIGN, *NONSENSE))
    with front(tmp_path, Front(trusted_proxies=PROXIES)) as client:

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(entry, max_size=8), st.booleans())
        def holds(chain: list[str], in_one_line: bool) -> None:
            lines = [", ".join(chain)] if in_one_line else chain
            got = seen(client, [("X-Forwarded-For", line) for line in lines])
            expected = rightmost_untrusted(chain, "127.0.0.1")
            assert plain(got["x-forwarded-for"]) == plain(expected), chain

        holds()


def test_a_client_cannot_say_who_it_is(tmp_path: Path) -> None:
    """Without a trusted proxy everything is overwritten; none of it reaches the ingress."""
    lies = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-For", "10.0.0.1, 192.0.2.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "bank.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "for=192.0.2.1;proto=https"),
        ("X-Real-IP", "192.0.2.1"),
    ]
    with front(tmp_path, Front(trusted_proxies=("192.0.2.0/24",))) as client:
        got = seen(client, lies)
        assert got["x-forwarded-for"] == "127.0.0.1" and got["x-forwarded-proto"] == "http"
        rest = {"x-forwarded-host", "x-forwarded-prefix", "forwarded", "x-real-ip"}
        assert not rest & got.keys()


def test_a_trusted_proxy_says_where_it_was_reached(tmp_path: Path) -> None:
    said = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")]
    with front(tmp_path, Front(trusted_proxies=PROXIES)) as client:
        got = seen(client, [*said, ("X-Forwarded-Host", "voice.example")])
        assert got["x-forwarded-proto"] == "https" and got["x-forwarded-host"] == "voice.example"
        assert got["x-forwarded-for"] == "192.0.2.1"


def status(client: httpx.Client, address: str, headers: Headers | None = None) -> httpx.Response:
    """The answer to a client at this address, behind a trusted proxy."""
    return client.get("/v1/models", headers={"X-Forwarded-For": address, **(headers or {})})


def test_only_allowed_networks_are_served(tmp_path: Path) -> None:
    told = Front(
        trusted_proxies=PROXIES,
        allow=("192.0.2.0/24", "2001:db8::/32"),
        deny=("192.0.2.128/25", "2001:db8:bad::/48"),
    )
    with front(tmp_path, told) as client:
        for address in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::5"):
            assert status(client, address).status_code == 200, address
        for address in ("192.0.2.129", "::ffff:192.0.2.129", "2001:db8:bad::1", "198.51.100.1"):
            answer = status(client, address)
            assert answer.status_code == 403 and answer.json() == body(*NOT_ALLOWED), address
        assert client.get("/v1/models").status_code == 200, "the machine itself always may"


def test_many_networks_fit(tmp_path: Path) -> None:
    many = tuple(f"192.0.{third}.{fourth}" for third in (2, 3) for fourth in range(1, 250))
    with front(tmp_path, Front(trusted_proxies=PROXIES, deny=many, allow=("0.0.0.0/0",))) as client:
        assert status(client, many[-1]).status_code == 403
        assert status(client, "192.0.4.1").status_code == 200


LIMITED = Front(
    trusted_proxies=PROXIES,
    handshakes_per_s=1_000,
    connections_per_address=3,
    handshakes_per_address=4,
)


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    """Those of others, and of the machine itself, are not counted with it; later its places are free."""
    with (
        slow() as (port, arrived, release),
        haproxy(tmp_path, application(port), front=LIMITED) as url,
    ):
        host, http_port = url.removeprefix("http://").split(":")

        def request(client: str) -> socket.socket:
            connection = socket.create_connection((host, int(http_port)), 10)
            said = f"X-Forwarded-For: {client}\r\n" if client else ""
            connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{said}\r\n".encode())
            return connection

        with ExitStack() as opened:

            def ask(client: str) -> socket.socket:
                return opened.enter_context(request(client))

            held = [ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:0:5::3")]
            wait_for(lambda: len(arrived) == len(held))
            refused = ask("2001:db8::4").recv(4096)
            assert refused.startswith(b"HTTP/1.1 429") and b"etry-after: 1" in refused.lower()
            assert json.loads(refused.split(b"\r\n\r\n", 1)[1]) == body(*TOO_MANY)
            held += [ask("2001:db8:0:1::1"), ask("192.0.2.1"), *(ask("") for _ in range(5))]
            release.set()
            for connection in held:
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            wait_for(lambda: ask("2001:db8::4").recv(4096).startswith(b"HTTP/1.1 200"))


@contextmanager
def slow() -> Iterator[tuple[int, list[str], threading.Event]]:
    """Answers once the event is set; its port, and the paths that it was asked for."""
    release = threading.Event()
    arrived: list[str] = []

    class Slow(Answer):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/-/healthz":
                arrived.append(self.path)
                release.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with answering(Slow) as port:
        try:
            yield port, arrived, release
        finally:
            release.set()


def test_handshakes_of_one_address_come_too_fast(tmp_path: Path) -> None:
    with front(tmp_path, LIMITED) as client:
        answers = [status(client, "192.0.2.1", HANDSHAKE) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 10 and refused[0].json() == body(*TOO_MANY)
        assert status(client, "192.0.2.2", HANDSHAKE).status_code == 200, "another address"
        assert status(client, "192.0.2.1").status_code == 200, "no handshake"
        mine = [client.get("/v1/models", headers=HANDSHAKE) for _ in range(20)]
        assert {answer.status_code for answer in mine} == {200}, "the machine itself"


@pytest.mark.parametrize("error", [NOT_ALLOWED, NO_CERTIFICATE, TOO_MANY], ids=lambda it: it[0])
def test_the_refusals_are_the_apis_own(error: tuple[str, str]) -> None:
    code, message = error
    assert ClientError(code, message).body() == body(code, message)
    assert ClientError(code, message).status == (429 if error is TOO_MANY else 403)


@pytest.mark.parametrize(
    ("proxies", "address"), [(("127.0.0.0/8",), "192.0.2.7"), ((), "127.0.0.1")], ids=str
)
def test_the_audit_log_names_the_client_that_haproxy_has_decided_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: tuple[str, ...], address: str
) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", secrets.token_hex(32))
    config = {"profile": "sim", "auth": "on", "storage": {"directory": str(tmp_path)}}
    with served(Config.model_validate(config)) as replica:
        ingress = application(int(replica.rpartition(":")[2]), health="/v1/health")
        with haproxy(tmp_path, ingress, front=Front(trusted_proxies=proxies)) as url:
            said = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
            assert httpx.get(f"{url}/v1/models", headers=said).status_code == 401
    told = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [it["address"] for it in told if it["event"] == "login_refused"] == [address]
