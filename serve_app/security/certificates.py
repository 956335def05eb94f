"""The server's certificate: whether its files can be used, as TLS for a socket, and one of our own
making for a first try."""

import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

OWN_DAYS = 365
OWN_LEFT = timedelta(days=30)
"""One of our own that is valid for less is replaced at the next start."""


class WrongCertificate(Exception):
    """A file that cannot be read, is something else, has expired or does not fit the other."""


class TlsFiles(NamedTuple):
    """Paths, and what is in them; "" and b"" where clients need no certificate."""

    certificate: str
    key: str
    client_ca: str = ""

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Raises `WrongCertificate`."""
        certificate, key, ca = (_read(path) for path in self)
        return certificate, key, ca


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes() if path else b""
    except OSError as error:
        raise WrongCertificate(f"{path}: {error.strerror}") from error


def checked(files: TlsFiles, now: datetime) -> x509.Certificate:
    """The server's certificate, once all files can be used. Raises `WrongCertificate`."""
    certificate, key, ca = files.read()
    leaf = _certificates(files.certificate, certificate)[0]
    if leaf.not_valid_after_utc <= now:
        raise WrongCertificate(f"{files.certificate}: expired on {leaf.not_valid_after_utc:%F}")
    if leaf.not_valid_before_utc > now:
        raise WrongCertificate(f"{files.certificate}: valid from {leaf.not_valid_before_utc:%F}")
    if _public(_key(files.key, key)) != _public(leaf):
        raise WrongCertificate(f"{files.key}: not the key of {files.certificate}")
    if files.client_ca:
        _certificates(files.client_ca, ca)
    context(files)
    return leaf


def context(files: TlsFiles) -> ssl.SSLContext:
    """For a socket that listens, as HAProxy does it. Raises `WrongCertificate`."""
    made = bare_context(files)
    try:
        made.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_ca:
            made.load_verify_locations(files.client_ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise WrongCertificate(f"{files.certificate}: {error}") from error
    return made


def bare_context(files: TlsFiles) -> ssl.SSLContext:
    """The same without a certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0  # who comes back shows its certificate again
    if files.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _no_password() -> str:
    """Else OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")


def _certificates(path: str, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise WrongCertificate(f"{path}: no certificate in PEM") from error


def _key(path: str, content: bytes) -> object:
    try:
        return serialization.load_pem_private_key(content, None)
    except TypeError as error:
        raise WrongCertificate(f"{path}: the key is encrypted; decrypt it first") from error
    except ValueError as error:
        raise WrongCertificate(f"{path}: no private key in PEM") from error


def _public(of: object) -> bytes:
    public = of.public_key()  # type: ignore[attr-defined]  # of a key or a certificate
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(public.public_bytes(serialization.Encoding.DER, form))


def fingerprint(certificate: x509.Certificate) -> str:
    """As browsers and `openssl x509 -fingerprint -sha256` show it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def self_signed(folder: Path, names: set[str], now: datetime) -> TlsFiles:
    """The one in `folder`, so that clients need trust it only once, or a new one there."""
    files = TlsFiles(str(folder / "certificate.pem"), str(folder / "key.pem"))
    try:
        kept = checked(files, now + OWN_LEFT)
        if names <= names_of(kept):
            return files
    except WrongCertificate:
        pass
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    _write(files.key, _key_pem(key))
    _write(files.certificate, _signed(key, names, now).public_bytes(serialization.Encoding.PEM))
    return files


def names_of(certificate: x509.Certificate) -> set[str]:
    """The hosts and addresses that it is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _signed(key: ec.EllipticCurvePrivateKey, names: set[str], now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "voxray, self-signed")])
    usage = x509.KeyUsage(True, *[False] * 8)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=OWN_DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(it) for it in sorted(names)]), False)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(usage, True)
        .add_extension(identifier, False)
        .add_extension(issuer, False)
        .sign(key, hashes.SHA256())
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: str, content: bytes) -> None:
    """For the owner only."""
    Path(path).unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def now() -> datetime:
    return datetime.now(UTC)
