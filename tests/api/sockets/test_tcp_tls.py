"""The TCP port under TLS: its certificate, how that changes, and clients' certificates."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from serve_app.config import Config
from serve_app.security import followed_certificate
from serve_app.security.certificates import TlsFiles, fingerprint
from tests.api.sockets.test_conversation_socket import Wire
from tests.authority import HOUR, Authority
from tests.fakes import served
from tests.ports import free_port
from tests.waiting import wait_for


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def port(files: TlsFiles) -> Iterator[int]:
    free = free_port()
    config = {"profile": "sim", "tcp": {"port": free}, "tls": files._asdict()}
    with served(Config.model_validate(config)):
        yield free


class Client(Wire):
    """Trusts the authority."""

    def __init__(self, port: int, ca: Path, certificate: tuple[str, str] | None = None) -> None:
        super().__init__(port)
        context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            context.load_cert_chain(*certificate)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def ping(self) -> bool:
        """Whether it is served."""
        self.send({"type": "ping"})
        return self.receive() == {"type": "pong"}

    @property
    def shown(self) -> str:
        assert isinstance(self.socket, ssl.SSLSocket)
        der = self.socket.getpeercert(binary_form=True)
        assert der
        return fingerprint(x509.load_der_x509_certificate(der))


def of(files: TlsFiles) -> str:
    return fingerprint(x509.load_pem_x509_certificate(Path(files.certificate).read_bytes()))


def test_a_new_certificate_is_for_new_connections_and_cuts_none(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_certificate, "CHECK_S", 0.05)
    files, renewed = authority.files("server"), authority.files("renewed")
    first = of(files)
    with port(files) as there, Client(there, authority.ca) as open_:
        assert open_.ping() and open_.shown == first
        Path(files.key).write_bytes(Path(renewed.key).read_bytes())  # does not fit for a moment
        with Client(there, authority.ca) as meanwhile:
            assert meanwhile.shown == first
        Path(files.certificate).write_bytes(Path(renewed.certificate).read_bytes())

        def shown() -> str:
            with Client(there, authority.ca) as new:
                assert new.ping()
                return new.shown

        wait_for(lambda: shown() == of(renewed), every_s=0.1)
        assert open_.ping()


def test_without_usable_files_nobody_is_served_until_there_are_some(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_certificate, "CHECK_S", 0.05)
    files, good = authority.files("old", lasts=-HOUR / 2), authority.files("good")
    with port(files) as there:
        with pytest.raises(ssl.SSLError):
            Client(there, authority.ca)
        for to, of_ in zip(files[:2], good[:2], strict=True):
            Path(to).write_bytes(Path(of_).read_bytes())

        def serves() -> bool:
            try:
                with Client(there, authority.ca) as client:
                    return client.ping()
            except ssl.SSLError:
                return False

        wait_for(serves, every_s=0.1)


def test_without_tls_nothing_is_said(authority: Authority) -> None:
    with port(authority.files("server")) as there:
        with Wire(there) as plain:
            plain.send({"type": "ping"})
            try:
                assert not plain.socket.recv(100).startswith(b"\0\0")
            except ConnectionResetError:
                pass
        with Client(there, authority.ca) as client:
            assert client.ping()


def test_mutual_tls(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_certificate, "CHECK_S", 0.05)
    clients, others = Authority(tmp_path / "theirs"), Authority(tmp_path / "others")
    friend, stranger = clients.issue("friend"), others.issue("stranger")
    files = authority.files("server")._replace(client_ca=str(clients.ca))

    with port(files) as there:

        def serves(certificate: tuple[str, str] | None) -> bool:
            try:
                with Client(there, authority.ca, certificate) as client:
                    return client.ping()
            except (ssl.SSLError, ConnectionError):
                return False

        assert serves(friend) and not serves(None) and not serves(stranger)
        clients.ca.write_bytes(others.ca.read_bytes())
        wait_for(lambda: not serves(friend), every_s=0.1)
        assert serves(stranger)
