"""Clients of the protocols in which a key comes in a message."""

import contextlib
import json
import socket as sockets
from typing import Any

import socketio


class Refused(Exception):
    """By the server; it says the code."""


class SocketIo:
    """A client that is connected."""

    def __init__(self, address: str, key: str | None) -> None:
        """Raises `Refused`."""
        self.told: list[tuple[str, Any]] = []
        """Events, with their fields."""
        self._refusals: list[Any] = []
        self._client = socketio.Client(reconnection=False)
        self._client.on("connect_error", self._refusals.append)
        self._client.on("*", lambda name, fields: self.told.append((name, fields)))
        auth = {} if key is None else {"key": key}
        try:
            self._client.connect(f"http://{address}", auth=auth, socketio_path="socket")
        except socketio.exceptions.ConnectionError as error:
            raise Refused(str(self._refusals)) from error

    @property
    def connected(self) -> bool:
        return bool(self._client.connected)

    def send(self, name: str, fields: Any) -> None:
        """Nothing, if it is disconnected."""
        with contextlib.suppress(socketio.exceptions.BadNamespaceError):
            self._client.emit(name, fields)

    def close(self) -> None:
        self._client.disconnect()


class Tcp:
    def __init__(self, port: int) -> None:
        self._socket = sockets.create_connection(("127.0.0.1", port), 10)

    def send(self, **message: Any) -> None:
        body = json.dumps(message).encode()
        self._socket.sendall(len(body).to_bytes(4) + body)

    def receive(self) -> dict[str, Any] | None:
        """None at the end."""
        length = self._exactly(4)
        body = self._exactly(int.from_bytes(length)) if length else b""
        return json.loads(body) if body else None

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        read = b""
        while len(read) < count and (more := self._socket.recv(count - len(read))):
            read += more
        return read if len(read) == count else b""


def tcp(port: int, key: str | None) -> Tcp:
    """A connection whose key was accepted. Raises `Refused`."""
    wire = Tcp(port)
    wire.send(**({"type": "ping"} if key is None else {"type": "auth", "key": key}))
    answer = wire.receive() or {}
    if answer.get("type") != "authenticated":
        wire.close()
        raise Refused(json.dumps(answer))
    return wire
