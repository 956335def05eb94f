"""Whether a certificate's files can be used, and one of our own making."""

import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from serve_app.security.certificates import (
    OWN_DAYS,
    TlsFiles,
    WrongCertificate,
    checked,
    fingerprint,
    names_of,
    now,
    self_signed,
)
from tests.authority import HOUR, Authority

NAMES = {"localhost", "127.0.0.1", "::1", "voice.example"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_files_that_fit_are_used(authority: Authority) -> None:
    files = authority.files("server")
    assert names_of(checked(files, now())) == {"localhost", "127.0.0.1"}
    assert checked(files._replace(client_ca=str(authority.ca)), now())


def encrypted(key: str) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return load_pem_private_key(Path(key).read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")
    )


def test_what_cannot_be_used_is_refused_with_its_reason(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.files("server")
    text, locked = tmp_path / "text", tmp_path / "locked"
    text.write_text("no PEM")
    locked.write_bytes(encrypted(files.key))
    early = TlsFiles(*authority.issue("early", begins=HOUR))
    wrong = {
        "expired on": authority.files("expired", lasts=-HOUR / 2),
        "valid from": early,
        "not the key of": files._replace(key=authority.files("other").key),
        "No such file": files._replace(certificate=str(tmp_path / "absent")),
        "no certificate in PEM": files._replace(certificate=str(text)),
        "no private key in PEM": files._replace(key=str(text)),
        "is encrypted": files._replace(key=str(locked)),
        f"{text}: no certificate": files._replace(client_ca=str(text)),
        "Is a directory": files._replace(key=str(tmp_path)),
    }
    for reason, them in wrong.items():
        with pytest.raises(WrongCertificate, match=reason):
            checked(them, now())


def test_one_of_our_own_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "tls"
    files = self_signed(folder, NAMES, now())
    certificate = checked(files, now())
    assert names_of(certificate) == NAMES
    assert stat.S_IMODE(Path(files.key).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again = checked(self_signed(folder, NAMES - {"::1"}, now()), now())
    assert fingerprint(again) == fingerprint(certificate)
    assert len(fingerprint(again).split(":")) == 32


def test_one_of_our_own_is_replaced_before_it_expires_and_for_new_names(tmp_path: Path) -> None:
    def made(names: set[str], days: int) -> str:
        at = now() + timedelta(days=days)
        return fingerprint(checked(self_signed(tmp_path, names, at), at))

    first = made(NAMES, 0)
    assert made(NAMES, OWN_DAYS - 31) == first
    second = made(NAMES, OWN_DAYS - 29)
    assert second != first
    assert made(NAMES | {"10.0.0.1"}, OWN_DAYS - 29) not in (first, second)


def test_one_of_our_own_can_be_trusted_as_its_own_authority(tmp_path: Path) -> None:
    files = self_signed(tmp_path, NAMES, now())
    trusting = ssl.create_default_context(cafile=files.certificate)
    strict = getattr(ssl, "VERIFY_X509_STRICT", 0)
    trusting.verify_flags |= strict
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files.certificate, files.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"
