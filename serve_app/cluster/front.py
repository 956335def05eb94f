"""What HAProxy shall do that Serve has no option for, on its way to the program that starts it.

Imports little, because that program runs at every change of the replicas. Pure.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

VARIABLE = "VOXRAY_FRONT"

PEM_FILE, CLIENT_CA_FILE = "server.pem", "client_ca.pem"
"""Copies of the certificates, beside HAProxy's configuration."""


class Front(NamedTuple):
    """Raises `TypeError` for an unknown field."""

    host: str = ""
    """Where clients connect; "" for `http_options.host`."""
    public: bool = False
    """Whether HAProxy's own pages can be reached from other machines."""
    handshakes_per_s: int = 400
    connections_per_address: int = 2000
    handshakes_per_address: int = 100
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    """Of pages that may read its answers."""


def to_environment(front: Front) -> dict[str, str]:
    return {VARIABLE: json.dumps(front._asdict(), separators=(",", ":"))}


def from_environment(environment: Mapping[str, str]) -> Front:
    return Front(**json.loads(environment.get(VARIABLE, "{}")))
