"""TLS on lanes: on when Ray's own TLS is on, with the same files.

As between Ray's processes, both ends show a certificate that the CA has signed. Its names are not
compared, because replicas move: who holds a certificate of this CA belongs to the cluster.
"""

import os
import ssl
from collections.abc import Mapping

USE_TLS = "RAY_USE_TLS"
CERT, KEY, CA = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"


class TlsIncomplete(Exception):
    """TLS is on, and a file is not named or cannot be used."""


def server(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """For a model replica; None without TLS. Raises `TlsIncomplete`."""
    return _context(environment, ssl.PROTOCOL_TLS_SERVER)


def client(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """For an ingress; None without TLS. Raises `TlsIncomplete`."""
    return _context(environment, ssl.PROTOCOL_TLS_CLIENT)


def _context(environment: Mapping[str, str], protocol: int) -> ssl.SSLContext | None:
    if environment.get(USE_TLS, "0").lower() not in ("1", "true"):
        return None
    missing = [name for name in (CERT, KEY, CA) if not environment.get(name)]
    if missing:
        raise TlsIncomplete(f"{USE_TLS} is on, but not set: {', '.join(missing)}")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(environment[CERT], environment[KEY])
        context.load_verify_locations(environment[CA])
    except OSError as error:  # ssl.SSLError is one
        raise TlsIncomplete(f"the files of {CERT}, {KEY} or {CA}: {error}") from error
    return context
