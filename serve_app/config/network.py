"""TLS, and who may reach the server."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from serve_app.config.model import ConfigModel, Count


def _network(text: str) -> str:
    return str(ip_network(text))


Network = Annotated[str, AfterValidator(_network)]
"""An address, or a network such as 10.0.0.0/8 or fd00::/8."""


def _absolute(path: str) -> str:
    """HAProxy and the replicas run in other folders."""
    absolute = str(Path(path).expanduser()) if path else ""
    if path and not Path(absolute).is_absolute():
        raise ValueError("must be an absolute path")
    return absolute


PemFile = Annotated[str, AfterValidator(_absolute)]
"""The absolute path of a file, or "" for none."""


class TlsConfig(ConfigModel):
    """TLS for all clients: at HAProxy and on the TCP port. Files that change are read again."""

    certificate: PemFile = Field(
        "",
        description="A PEM file with the server's certificate, followed by those that signed it. "
        "On a cluster it is on every node. Empty: no TLS.",
    )
    key: PemFile = Field("", description="A PEM file with the key of `certificate`, not encrypted.")
    client_ca: PemFile = Field(
        "",
        description="A PEM file with certificates: a client must show one that these have signed "
        "(mutual TLS). Empty: no client needs one.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key need each other")
        if self.client_ca and not self.certificate:
            raise ValueError("client_ca needs certificate and key")
        return self


class NetworkConfig(ConfigModel):
    """Which addresses may connect, and how often. The machine itself always may."""

    allow: tuple[Network, ...] = Field(
        (), description="Only clients in these networks are served. Empty: all are."
    )
    deny: tuple[Network, ...] = Field(
        (), description="Clients in these networks are refused, even if `allow` has them."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Proxies in front of voxray, whose X-Forwarded-For says who the client is. "
        "What others write there is ignored.",
    )
    connections_per_address: Count = Field(
        2000,
        description="Requests and sockets that one client's address (IPv6: its /64) may have open "
        "at once on one machine; more are refused with 429.",
    )
    handshakes_per_address: Count = Field(
        100,
        description="New WebSockets a second of one client's address on one machine; more are "
        "refused with 429.",
    )
