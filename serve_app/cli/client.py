"""The client of a live session: socket, flow control, events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import websockets
from websockets.asyncio.client import ClientConnection, connect

from serve_app.cli import Failure, NoServer
from serve_app.cli.rest import Refused, is_loopback

AHEAD_SHARE = 0.5
"""Of the server's limit on buffered audio; at this share the client waits for progress."""

PROBE_MS = 5_000
"""The client asks for progress each time that it has sent this much audio."""

Event = dict[str, Any]


class SessionFailed(Failure):
    """The server refused or ended the session."""


@asynccontextmanager
async def socket_to(server: str, path: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket of the server. Raises `NoServer`, `Refused`, `SessionFailed`."""
    url = server.replace("http", "ws", 1).rstrip("/") + path
    proxy: Literal[True] | None = None if is_loopback(server) else True
    try:
        socket = await connect(url, max_size=None, compression=None, proxy=proxy)
    except websockets.InvalidStatus as error:
        raise Refused(error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, websockets.InvalidHandshake, websockets.InvalidURI) as error:
        raise NoServer.at(server) from error
    try:
        async with socket:
            yield socket
    except websockets.ConnectionClosedError as error:
        raise SessionFailed(f"the server closed the connection: {error}") from error


async def run_session(
    server: str,
    start: dict[str, Any],
    pcm: AsyncIterator[bytes],
    on_event: Callable[[Event], None],
    realtime: bool,
) -> None:
    """Stream 16 kHz mono pcm and pass every event to `on_event`.

    Raises `NoServer`, `Refused` and `SessionFailed`.
    """
    async with socket_to(server, "/v1/transcribe/stream") as socket:
        hello = await _answer(socket)
        window_ms = hello["limits"]["max_buffered_audio_ms"] * AHEAD_SHARE
        await _start(socket, start)
        progress = _Progress()
        sending = asyncio.create_task(_send(socket, pcm, progress, window_ms, realtime))
        receiving = asyncio.create_task(_receive(socket, on_event, progress))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():  # unreadable audio ends the session
                with contextlib.suppress(websockets.ConnectionClosed):
                    sending.result()
            await receiving
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


async def _start(socket: ClientConnection, start: dict[str, Any]) -> None:
    """Start the session; no audio is sent before the server accepts."""
    fields = {name: value for name, value in start.items() if value not in (None, [])}
    await socket.send(json.dumps({"type": "start", **fields}))
    await _answer(socket)


async def _answer(socket: ClientConnection) -> Event:
    event: Event = json.loads(await socket.recv())
    if event["type"] == "error":
        raise SessionFailed(f"the server refused: {event['message']}")
    return event


class _Progress:
    """How much audio the server has processed."""

    def __init__(self) -> None:
        self.ms = 0
        self.changed = asyncio.Event()


async def _receive(
    socket: ClientConnection, on_event: Callable[[Event], None], progress: _Progress
) -> None:
    fatal = None
    async for frame in socket:
        event = json.loads(frame)
        if event["type"] == "keepalive":
            progress.ms = event["audio_ms"]
            progress.changed.set()
        fatal = event["message"] if event["type"] == "error" and event["fatal"] else fatal
        on_event(event)
    if fatal:
        raise SessionFailed(f"the server ended the session: {fatal}")


async def _send(
    socket: ClientConnection,
    pcm: AsyncIterator[bytes],
    progress: _Progress,
    window_ms: float,
    realtime: bool,
) -> None:
    loop = asyncio.get_running_loop()
    began, sent_ms, probed_ms = loop.time(), 0.0, 0.0
    async for chunk in pcm:
        await socket.send(chunk)
        sent_ms += len(chunk) / 32
        if sent_ms - probed_ms >= PROBE_MS:
            probed_ms = sent_ms
            await socket.send('{"type":"keepalive"}')
        if realtime:
            await asyncio.sleep(began + sent_ms / 1000 - loop.time())
        while sent_ms - progress.ms > window_ms:
            progress.changed.clear()
            await socket.send('{"type":"keepalive"}')
            await progress.changed.wait()
            await asyncio.sleep(0.05 if sent_ms - progress.ms > window_ms else 0)
    await socket.send('{"type":"stop"}')
