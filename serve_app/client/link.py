"""One connection of a live session: the opening messages, and a task that sends the audio."""

import asyncio
import contextlib
import json
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from serve_app.client.continuity import Continuity
from serve_app.client.errors import ResumeRefused, SessionFailed, Unreachable
from serve_app.client.retained_audio import RetainedAudio

KEEPALIVE_S = 5.0
"""How often the server is asked how far it is: that keeps the session, and shows a dead server."""
MUTE_S = 15.0
"""A server that says nothing for so long is lost."""
ASK_AGAIN_S = 0.05
PIECE_MS = 500
"""Audio that is sent again goes in messages of at most that."""
AHEAD_SHARE = 0.5
"""Of the server's limit on buffered audio; at this share the client waits for progress."""

Frame = dict[str, Any]


async def greeted(socket: ClientConnection, start: Frame) -> Frame:
    """The server's answer to `start`. Raises `SessionFailed` and `Unreachable`."""
    try:
        async with asyncio.timeout(MUTE_S):
            await socket.send(json.dumps(start))
            await _session(socket)
            return await _session(socket)
    except TimeoutError as error:
        raise Unreachable("the server accepted the connection and says nothing") from error
    except websockets.ConnectionClosed as error:
        raise Unreachable(f"the server closed the connection: {error}") from error


async def _session(socket: ClientConnection) -> Frame:
    """The next `session` message: one comes at once, another one answers `start`."""
    while (frame := json.loads(await socket.recv()))["type"] != "session":
        if frame["type"] == "error":
            failed = ResumeRefused if frame["code"] == "resume_refused" else SessionFailed
            raise failed(frame["code"], frame["message"])
    return dict(frame)


class Link:
    """A connection whose session stands. `pushed` is set when there is more audio."""

    def __init__(
        self,
        socket: ClientConnection,
        session: Frame,
        audio: RetainedAudio,
        seen: Continuity,
        pushed: asyncio.Event,
    ) -> None:
        self._socket = socket
        self._ahead_ms = session["limits"]["max_buffered_audio_ms"] * AHEAD_SHARE
        self._audio = audio
        self._seen = seen
        self._pushed = pushed
        self.mute_at = asyncio.get_running_loop().time() + MUTE_S
        self._sending = asyncio.create_task(self._send())

    @property
    def close_code(self) -> int:
        return self._socket.close_code or 1006

    async def frame(self) -> Frame | None:
        """The next message; None once the connection is closed."""
        try:
            frame = json.loads(await self._socket.recv())
        except websockets.ConnectionClosed:
            return None
        self.mute_at = asyncio.get_running_loop().time() + MUTE_S
        return dict(frame)

    def cut(self) -> None:
        """Break the connection, so that `frame` returns."""
        self._socket.transport.abort()

    async def close(self) -> None:
        self._sending.cancel()
        try:
            # not awaited itself, because then our own cancellation would look like its end
            await asyncio.wait([self._sending])
            if not self._sending.cancelled():
                self._sending.result()
        finally:
            await self._socket.close()

    async def _send(self) -> None:
        """Until the connection is closed; the receiving side then decides what to do."""
        with contextlib.suppress(websockets.ConnectionClosed):
            loop = asyncio.get_running_loop()
            ask_at = loop.time() + KEEPALIVE_S
            while True:
                if loop.time() >= ask_at:
                    await self._ask()
                    ask_at = loop.time() + KEEPALIVE_S
                await self._send_next(ask_at)

    async def _send_next(self, ask_at: float) -> None:
        if self._audio.sent_ms - self._seen.progress_ms > self._ahead_ms:
            await self._ask()
            await asyncio.sleep(ASK_AGAIN_S)
            return
        match self._audio.take(PIECE_MS):
            case bytes() as audio:
                await self._socket.send(audio)
            case None:
                await self._await_audio(ask_at)
            case command:
                await self._socket.send(json.dumps({"type": command}))

    async def _await_audio(self, until: float) -> None:
        self._pushed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._pushed.wait()

    async def _ask(self) -> None:
        await self._socket.send('{"type":"keepalive"}')
