"""A live session seen from a client: the socket, flow control, and what comes back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

AHEAD_SHARE = 0.5
"""Of the server's bound on audio ahead: the client stops there and waits for progress."""

PROBE_MS = 5_000
"""After so much audio the client asks how far the server is."""

Event = dict[str, Any]


class NoServer(Exception):
    """Nobody answers, or somebody who is not voxray."""


class SessionFailed(Exception):
    """The server ended the session with an error."""


def stream_url(server: str) -> str:
    return server.replace("http", "ws", 1).rstrip("/") + "/v1/transcribe/stream"


async def run_session(
    server: str,
    start: dict[str, Any],
    pcm: AsyncIterator[bytes],
    on_event: Callable[[Event], None],
    realtime: bool,
) -> None:
    """Stream 16 kHz mono pcm and hand every event to `on_event`.

    Raises `NoServer` and `SessionFailed`.
    """
    try:
        async with connect(stream_url(server), max_size=None, compression=None) as socket:
            await _converse(socket, start, pcm, on_event, realtime)
    except websockets.InvalidStatus as error:
        raise NoServer(_refusal(error)) from error
    except (OSError, websockets.InvalidMessage, websockets.InvalidURI) as error:
        raise NoServer(f"no voxray server at {server}: start one with `voxray run`") from error
    except websockets.ConnectionClosedError as error:
        raise SessionFailed(f"the server closed the session: {error}") from error


def _refusal(error: websockets.InvalidStatus) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(error.response.body)["error"]["message"]
        return f"the server refused: {said}"
    return f"the server answered HTTP {error.response.status_code}: is it voxray?"


async def _converse(
    socket: ClientConnection,
    start: dict[str, Any],
    pcm: AsyncIterator[bytes],
    on_event: Callable[[Event], None],
    realtime: bool,
) -> None:
    hello = json.loads(await socket.recv())
    window_ms = hello["limits"]["max_audio_ahead_ms"] * AHEAD_SHARE
    progress = _Progress()
    asked = {name: value for name, value in start.items() if value not in (None, [])}
    await socket.send(json.dumps({"type": "start", **asked}))
    sending = asyncio.create_task(_send(socket, pcm, progress, window_ms, realtime))
    receiving = asyncio.create_task(_receive(socket, on_event, progress))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():  # audio that cannot be had ends the session
            with contextlib.suppress(websockets.ConnectionClosed):
                sending.result()
        await receiving
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


class _Progress:
    """How far the server is, in ms of audio."""

    def __init__(self) -> None:
        self.ms = 0
        self.moved = asyncio.Event()


async def _receive(
    socket: ClientConnection, on_event: Callable[[Event], None], progress: _Progress
) -> None:
    fatal = None
    async for frame in socket:
        event = json.loads(frame)
        if event["type"] == "keepalive":
            progress.ms = event["audio_ms"]
            progress.moved.set()
        fatal = event["message"] if event["type"] == "error" and event["fatal"] else fatal
        on_event(event)
    if fatal:
        raise SessionFailed(fatal)


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
            progress.moved.clear()
            await socket.send('{"type":"keepalive"}')
            await progress.moved.wait()
            await asyncio.sleep(0.05 if sent_ms - progress.ms > window_ms else 0)
    await socket.send('{"type":"stop"}')
