"""Which servers a client trusts, and the certificate that it shows."""

import os
import ssl

from serve_app.client.errors import CertificateUnusable

CERTIFICATE = "VOXRAY_CLIENT_CERTIFICATE"
"""A PEM file with a certificate and its key, for servers that ask for one."""


def tls() -> ssl.SSLContext:
    """Trusts whom the system trusts, or the file that `SSL_CERT_FILE` names. Raises
    `CertificateUnusable`."""
    context = ssl.create_default_context()
    if certificate := os.environ.get(CERTIFICATE):
        try:
            context.load_cert_chain(certificate)
        except OSError as error:  # ssl.SSLError is one
            raise CertificateUnusable(f"{CERTIFICATE}: {certificate}: {error}") from error
    return context
