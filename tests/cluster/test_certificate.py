"""HAProxy under TLS, as our program starts it: its certificate, and how that changes."""

import json
import os
import signal
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest
from cryptography import x509
from ray.serve._private.haproxy import BackendConfig

from serve_app.cluster.addresses import NO_CERTIFICATE, body
from serve_app.cluster.certificate import CHECK_S
from serve_app.cluster.front import Front, to_environment
from serve_app.security.certificates import TlsFiles, fingerprint
from tests.authority import HOUR, Authority
from tests.cluster.test_addresses import echo
from tests.cluster.test_haproxy import application, rendered
from tests.server import BIN
from tests.waiting import await_listening, wait_for

LATER_S = 4 * CHECK_S + 10


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


class Running:
    """HAProxy with TLS; who connects must trust the authority."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ca: Path, said: Path) -> None:
        self.process, self.port, self._ca, self._said = process, port, ca, said

    @property
    def said(self) -> str:
        return self._said.read_text()

    def trusting(self, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._ca))
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def client(self, certificate: tuple[str, str] | None = None) -> httpx.Client:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, verify=self.trusting(certificate))

    def shown(self) -> str:
        """The fingerprint of what a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port))
        return fingerprint(x509.load_pem_x509_certificate(pem.encode()))


@contextmanager
def haproxy(
    folder: Path, files: TlsFiles, ca: Path, *more: str, ingress: BackendConfig | None = None
) -> Iterator[Running]:
    """In front of `ingress`, else of one that answers with the headers that it got."""
    with echo() as echoing:
        file, port = rendered(folder, ingress or application(echoing))
        told = Front(certificate=files.certificate, key=files.key, client_ca=files.client_ca)
        said = folder / "said.log"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [str(BIN / "voxray-haproxy"), "-db", "-f", str(file), *more],
                env=os.environ | to_environment(told),
                stderr=out,
            )
        try:
            await_listening(port, process)
            yield Running(process, port, ca, said)
        finally:
            process.terminate()
            process.wait()


def of(files: TlsFiles) -> str:
    return fingerprint(x509.load_pem_x509_certificate(Path(files.certificate).read_bytes()))


def replace(files: TlsFiles, by: TlsFiles) -> None:
    """As an administrator does it: one file after the other, so that they do not fit for a
    moment."""
    Path(files.key).write_bytes(Path(by.key).read_bytes())
    time.sleep(CHECK_S * 1.5)
    Path(files.certificate).write_bytes(Path(by.certificate).read_bytes())


def test_a_new_certificate_is_for_new_connections_and_cuts_none(
    tmp_path: Path, authority: Authority
) -> None:
    files, other = authority.files("server"), authority.files("renewed")
    first = of(files)
    with haproxy(tmp_path, files, authority.ca) as it, it.client() as open_:
        assert open_.get("/v1/models").json()["x-forwarded-proto"] == ["https"]
        assert it.shown() == first
        replace(files, other)
        wait_for(lambda: it.shown() == of(other), LATER_S)
        assert "was not changed" in it.said and "changed the certificate" in it.said
        assert open_.get("/v1/models").status_code == 200
        assert len(open_._transport._pool.connections) == 1  # type: ignore[attr-defined]
        Path(files.certificate).write_text("by mistake")
        wait_for(lambda: "no certificate in PEM" in it.said, LATER_S)
        assert it.shown() == of(other)
        with it.client() as new:
            assert new.get("/v1/models").status_code == 200


def test_an_haproxy_that_starts_while_the_files_are_wrong_has_the_last_good_ones(
    tmp_path: Path, authority: Authority
) -> None:
    """Serve starts another one whenever the replicas change."""
    files = authority.files("server")
    first = of(files)
    with haproxy(tmp_path, files, authority.ca):
        assert stat.S_IMODE((tmp_path / "server.pem").stat().st_mode) == 0o600
        Path(files.key).write_text("by mistake")
    with haproxy(tmp_path, files, authority.ca) as it:
        assert it.shown() == first and "kept the last certificate" in it.said


def test_what_follows_the_files_ends_with_its_haproxy(tmp_path: Path, authority: Authority) -> None:
    with haproxy(tmp_path, authority.files("server"), authority.ca) as it:
        (follower,) = wait_for(lambda: psutil.Process(it.process.pid).children())
        it.process.send_signal(signal.SIGKILL)
        wait_for(lambda: not follower.is_running() or follower.status() == "zombie")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_what_is_spoken(tmp_path: Path, authority: Authority) -> None:
    """WebSockets need HTTP/1.1; old versions of TLS are refused."""
    with haproxy(tmp_path, authority.files("server"), authority.ca) as it:
        context = it.trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with httpx.Client(verify=context, http2=False) as client:
            answer = client.get(f"https://127.0.0.1:{it.port}/v1/models")
            assert answer.http_version == "HTTP/1.1"
        old = it.trusting()
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError), httpx.Client(verify=old) as client:
            client.get(f"https://127.0.0.1:{it.port}/v1/models")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{it.port}/v1/models")


def test_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    clients, foreign = Authority(tmp_path / "theirs", "clients"), Authority(tmp_path / "foreign")
    files = authority.files("server")._replace(client_ca=str(clients.ca))
    known = clients.issue("friend")
    with haproxy(tmp_path, files, authority.ca) as it:
        with it.client(known) as client:
            assert client.get("/v1/models").status_code == 200
        with it.client() as client:
            refused = client.get("/v1/models")
            assert refused.status_code == 403 and refused.json() == body(*NO_CERTIFICATE)
            assert client.get("/v1/ready").status_code == 200, "balancers may ask"
        for wrong in (foreign.issue("stranger"), clients.issue("former", lasts=-HOUR / 2)):
            with it.client(wrong) as client, pytest.raises(httpx.HTTPError):
                client.get("/v1/models")
        clients.ca.write_bytes(foreign.ca.read_bytes())

        def is_refused() -> bool:
            with it.client(known) as client:
                try:
                    return client.get("/v1/models").status_code != 200
                except httpx.HTTPError:
                    return True

        wait_for(is_refused, LATER_S, every_s=0.2)
        with it.client(foreign.issue("stranger")) as client:
            assert client.get("/v1/models").status_code == 200, "the new authority's"


def test_it_does_not_start_without_a_certificate(tmp_path: Path, authority: Authority) -> None:
    expired = authority.files("old", lasts=-HOUR / 2)
    file, _ = rendered(tmp_path, application(1))
    told = Front(certificate=expired.certificate, key=expired.key)
    started = subprocess.run(
        [str(BIN / "voxray-haproxy"), "-db", "-f", str(file)],
        env=os.environ | to_environment(told),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert started.returncode == 1 and "expired on" in started.stderr, started


def test_what_is_told_arrives() -> None:
    front = Front(host="::", certificate="a", allow=("10.0.0.0/8",), connections_per_address=7)
    (told,) = to_environment(front).values()
    lists = ("allow", "deny", "trusted_proxies", "origins")
    arrived = json.loads(told)
    assert Front(**arrived | {name: tuple(arrived[name]) for name in lists}) == front
