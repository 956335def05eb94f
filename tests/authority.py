"""Certificates for tests: an authority, and what it has signed."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serve_app.security.certificates import TlsFiles

HOUR = timedelta(hours=1)


class Authority:
    """Its own certificate is the file `ca`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(_pem(self._signed(name, self._key, timedelta(days=1), is_ca=True)))

    def issue(
        self, name: str, lasts: timedelta = 24 * HOUR, begins: timedelta = -HOUR
    ) -> tuple[str, str]:
        """The files of a certificate for this machine, and of its key; begins in the past."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signed = self._signed(name, key, lasts, begins)
        certificate, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(_pem(signed))
        key_file.write_bytes(secret)
        return str(certificate), str(key_file)

    def files(self, name: str, lasts: timedelta = 24 * HOUR) -> TlsFiles:
        return TlsFiles(*self.issue(name, lasts))

    def _signed(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        lasts: timedelta,
        begins: timedelta = -HOUR,
        is_ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject, issuer = _name(name), _name(self._name)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(is_ca, None), True)
            .add_extension(x509.SubjectAlternativeName(hosts), False)
            .add_extension(_usage(is_ca), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(identifier, False)
            .sign(self._key, hashes.SHA256())
        )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, is_ca, False, False, False)
