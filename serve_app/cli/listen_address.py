"""Where the server listens: its URL, who has the port, and the wait until it serves."""

import contextlib
import errno
import ipaddress
import socket
import time
from typing import NamedTuple

import psutil

READY_S = 60
READY_IN_A_ROW = 5
"""While HAProxy is replaced, the old one, which knows no ingress, still accepts connections."""

ON_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""At `::` HAProxy listens with IPv4, too, and IPv6 may be switched off."""


class ListenAddress(NamedTuple):
    """An address and port, and whether clients speak TLS there."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        return self._url(self.host)

    @property
    def local_url(self) -> str:
        """How this machine reaches it."""
        return self._url(ON_THIS_MACHINE.get(self.host, self.host))

    def _url(self, host: str) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def obstacle(self) -> str | None:
        """Why nobody can listen here, in words; None if the port is free."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as error:
            return self._reason(error)
        return None

    def _reason(self, error: OSError) -> str:
        place = f"port {self.port} on {self.host}"
        if error.errno != errno.EADDRINUSE:
            return f"{place} cannot be used: {error.strerror}"
        return f"{place} is in use by {_owner(self.port) or 'another program'}"

    def await_ready(self) -> None:
        """Until every new connection reaches an ingress replica whose lanes to the models are
        open. Raises `TimeoutError`."""
        deadline = time.monotonic() + READY_S
        in_a_row = 0
        while in_a_row < READY_IN_A_ROW:
            in_a_row = in_a_row + 1 if _is_ready(f"{self.local_url}/v1/ready") else 0
            if time.monotonic() > deadline:
                raise TimeoutError(f"the models were not ready within {READY_S} s")
            time.sleep(0.05)


def is_loopback(host: str) -> bool:
    """Whether every address of this name is this machine's own alone."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(it).is_loopback for it in found)


def _is_ready(url: str) -> bool:
    """Over a new connection, and never through a proxy. The certificate need not be for this
    machine's own address, and nothing is told here that it would protect."""
    import httpx2 as httpx

    try:
        return httpx.get(url, timeout=2, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def _owner(port: int) -> str | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return _describe(connection.pid) if connection.pid else None
    return None


def _describe(pid: int) -> str:
    process = psutil.Process(pid)
    what = " ".join(process.cmdline())[:80] or process.name()
    running = "a running voxray" if "haproxy" in process.name() else process.name()
    return f"{running} (pid {pid}: {what})"
