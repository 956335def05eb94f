"""The server's certificate, as `voxray run` looks at it before it starts, or makes it."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
from cryptography import x509

from serve_app.cli.listen_address import ON_THIS_MACHINE
from serve_app.config import Config
from serve_app.config.network import TlsConfig
from serve_app.security.certificates import TlsFiles, checked, fingerprint, now, self_signed

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
FOLDER = "tls"
"""In `storage.directory`."""


def own_certificate(config: Config, host: str) -> dict[str, str]:
    """The section `tls` with a self-signed certificate for all names of this machine that clients
    at `host` may use; made once and kept."""
    files = self_signed(config.storage.folder / FOLDER, names(host), now())
    return config.tls.model_dump() | {"certificate": files.certificate, "key": files.key}


def names(host: str) -> set[str]:
    """By which clients may call a server that listens at `host`."""
    listening = set(_addresses()) if host in ON_THIS_MACHINE else {host}
    return LOOPBACK | {socket.gethostname()} | listening


def _addresses() -> Iterator[str]:
    """Of this machine; those of a single link need a zone, which certificates cannot have."""
    for found in psutil.net_if_addrs().values():
        for it in found:
            if it.family in (socket.AF_INET, socket.AF_INET6):
                address = ip_address(it.address.partition("%")[0])
                if not address.is_link_local:
                    yield str(address)


def checked_certificate(tls: TlsConfig) -> x509.Certificate | None:
    """The one that is configured, if one is. Raises `WrongCertificate`."""
    if not tls.certificate:
        return None
    return checked(TlsFiles(tls.certificate, tls.key, tls.client_ca), now())


def how_to_trust(tls: TlsConfig, certificate: x509.Certificate) -> tuple[str, ...]:
    """Lines for the person who starts the server."""
    path = Path(tls.certificate)
    return (
        f"its certificate is self-signed: {path}, valid until {certificate.not_valid_after_utc:%F}",
        f"  SHA-256 {fingerprint(certificate)}",
        f"  commands and Python trust it with: export SSL_CERT_FILE={path}",
        f"  curl with: --cacert {path}; in a browser, compare the fingerprint",
    )
