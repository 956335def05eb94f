"""Serve's ports between replicas, which it opens on every interface."""

from typing import Any

from ray.serve._private import replica

OPENS = "add_port_to_grpc_server"


def listen_only_on(host: str) -> None:
    """For this replica, before its constructor ends; Serve has no option for it."""
    open_port = getattr(replica, OPENS)

    def opened(server: Any, address: str) -> int:
        return int(open_port(server, f"{host}:{address.rpartition(':')[2]}"))

    setattr(replica, OPENS, opened)
