"""Ports for servers that must be told theirs before they start."""

import contextlib
import random
import socket

import pytest

SPARE = range(20_000, 30_000)
"""Outgoing connections, Ray's workers and Serve's replicas take theirs elsewhere: a port that the
system picks may be in use again before a slow server has bound it."""


def free_port() -> int:
    """A port on which nobody listens."""
    for port in random.Random().sample(SPARE, 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def needs_ipv6() -> None:
    """Skips the test where this machine has none."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6")
