"""Commands against a server with TLS, and the certificate that `voxray run` makes."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app.cli import DONE, FAILED, NO_SERVER, USAGE
from serve_app.cli.certificate import how_to_trust, names, own_certificate
from serve_app.client.tls import CERTIFICATE
from serve_app.config import Config
from serve_app.security.certificates import TlsFiles, checked, names_of, now
from tests.authority import HOUR, Authority
from tests.cluster.test_certificate import haproxy
from tests.cluster.test_haproxy import application
from tests.fakes import served
from tests.server import voxray


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def url(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """A server that asks for a certificate, as its clients reach it."""
    files = authority.files("server")._replace(client_ca=str(authority.ca))
    with served() as address:
        ingress = application(int(address.rpartition(":")[2]), health="/v1/health")
        with haproxy(tmp_path, files, authority.ca, ingress=ingress) as it:
            yield f"https://127.0.0.1:{it.port}"


def both(authority: Authority, name: str) -> str:
    """A certificate and its key in one file."""
    certificate, key = (Path(path) for path in authority.issue(name))
    with certificate.open("ab") as file:
        file.write(key.read_bytes())
    return str(certificate)


def test_commands_reach_a_server_with_tls(
    url: str, authority: Authority, tmp_path: Path, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(speech))
    commands = (("usage",), ("transcribe", str(file)))

    def ran(code: int, said: str) -> None:
        for command in commands:
            done = voxray(*command, "--server", url)
            assert done.returncode == code and said in done.stderr, done

    ran(NO_SERVER, "is not trusted: unable to get local issuer certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    ran(FAILED, "connect with a client certificate")
    monkeypatch.setenv(CERTIFICATE, str(file))
    ran(FAILED, f"{CERTIFICATE}: {file}")
    monkeypatch.setenv(CERTIFICATE, both(authority, "friend"))
    ran(DONE, "")


def test_a_certificate_of_its_own_is_for_all_of_this_machines_names(tmp_path: Path) -> None:
    config = Config.model_validate({"storage": {"directory": str(tmp_path)}})
    section = own_certificate(config, "0.0.0.0")
    tls = Config.model_validate({"tls": section}).tls
    certificate = checked(TlsFiles(tls.certificate, tls.key), now())
    assert names_of(certificate) == names("0.0.0.0") >= {"localhost", socket.gethostname()}
    assert names("127.0.0.1") < names("192.0.2.7") == names("127.0.0.1") | {"192.0.2.7"}
    told = "\n".join(how_to_trust(tls, certificate))
    assert f"SSL_CERT_FILE={tls.certificate}" in told and "SHA-256 " in told


def test_a_server_does_not_start_with_a_certificate_that_cannot_be_used(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("old", lasts=-HOUR / 2)
    config = tmp_path / "serve_config.yaml"
    tls = f"{{certificate: {certificate}, key: {key}}}"
    config.write_text(f"applications: [{{args: {{profile: sim, tls: {tls}}}}}]")
    done = voxray("run", "--config", str(config))
    assert done.returncode == FAILED and f"{certificate}: expired on" in done.stderr, done
    done = voxray("run", "--config", str(config), "--tls", "self")
    assert done.returncode == USAGE
