"""Opens a WebSocket of a voxray server, with the errors of this package."""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect

from serve_app.client.errors import HandshakeRefused, Unreachable
from serve_app.client.tls import tls

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""How long the server may take to answer a close; a lost connection does not."""


async def dial(server: str, path: str, headers: Mapping[str, str] = {}) -> ClientConnection:
    """`server` is its http(s) or ws(s) URL. Raises `Unreachable` and `HandshakeRefused`."""
    url = re.sub("^http", "ws", server).rstrip("/") + path
    try:
        return await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None if is_loopback(server) else True,
            ssl=tls() if url.startswith("wss:") else None,
        )
    except websockets.InvalidStatus as error:
        raise _refused(error) from error
    except (OSError, websockets.InvalidHandshake, websockets.InvalidURI) as error:
        raise Unreachable(f"no server at {server}: {error}") from error


def is_loopback(url: str) -> bool:
    """Whether `url` is on this machine; then no proxy is used."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(error: websockets.InvalidStatus) -> HandshakeRefused:
    answer = error.response
    after = answer.headers.get("Retry-After", "")
    return HandshakeRefused(
        answer.status_code, bytes(answer.body or b""), float(after) if after.isdigit() else 0.0
    )
