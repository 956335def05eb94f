"""A live transcription, from audio to events, over as many connections as it takes.

Reading the events drives it: who reads gets the next event, and while a connection is lost, opens
another one. A task of the connection sends audio meanwhile.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterable, Mapping
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection

from serve_app.client.continuity import Continuity
from serve_app.client.errors import (
    HandshakeRefused,
    ResumeRefused,
    SessionOver,
    TranscriptionError,
)
from serve_app.client.events import (
    ConnectionResumed,
    Reconnecting,
    TranscriptionEvent,
    started,
)
from serve_app.client.handshake import dial
from serve_app.client.key import key_headers
from serve_app.client.link import Frame, Link, greeted
from serve_app.client.options import LiveOptions
from serve_app.client.outage import Outage
from serve_app.client.retained_audio import RetainedAudio

PATH = "/v1/transcribe/stream"
BUFFER_S = 30.0
PATIENCE_S = 60.0
"""How long to wait for a server."""
SPARE_MS = 15_000
"""What the buffer holds beyond the longest utterance: silence before it that is not confirmed yet,
audio that the server wants to hear again, and the wait for the final."""
STEADY_S = 10.0
"""A connection that has lasted so long ends an outage."""
MOVE_WITHIN_S = 5.0
"""Clients that are silent when their server stops leave it within that time, one by one."""
MOVE_AFTER_FINAL_S = 0.3


class LiveTranscription:
    """`async with LiveTranscription(url) as live:`, then `stream` or `send`, and `async for`.

    At most `buffer_s` of audio that is not final is kept (or as much as the server's longest
    utterance needs); at that, `send` waits. `api_key`: None is `VOXRAY_API_KEY` of the environment.
    Raises `TranscriptionError`s.
    """

    def __init__(
        self,
        server: str,
        options: LiveOptions = LiveOptions(),  # noqa: B008 - it is frozen
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] = {},
        buffer_s: float = BUFFER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._server = server
        self._options = options
        self._headers = key_headers(api_key) | dict(headers)
        self._patience_s = patience_s
        self._audio = RetainedAudio(options.sample_rate, options.frame_bytes, int(buffer_s * 1000))
        self._seen = Continuity()
        self._events: deque[TranscriptionEvent] = deque()
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._outage: Outage | None = None
        self._retry_at = self._steady_at = 0.0
        self._move_at: float | None = None
        self._stay_until = 0.0
        self._pushed, self._room = asyncio.Event(), asyncio.Event()
        self._streaming: asyncio.Task[None] | None = None
        self._failure: TranscriptionError | None = None
        self._started = self._over = False

    # The audio.

    def stream(self, audio: AsyncIterable[bytes]) -> None:
        """Send all of it and then the end, while the events are read; they raise its errors."""
        self._streaming = asyncio.create_task(self._stream(audio))
        self._streaming.add_done_callback(self._streamed)

    async def send(self, audio: bytes) -> None:
        """Whole samples of every channel. While the buffer is full, it waits."""
        if len(audio) % self._options.frame_bytes:
            raise ValueError(f"{len(audio)} bytes are not whole samples of every channel")
        while not self._over:
            audio = audio[self._audio.push(audio) :]
            self._pushed.set()
            if not audio:
                return
            self._room.clear()
            await self._room.wait()
        raise SessionOver("the session has ended")

    def finalize(self) -> None:
        """End the current utterance here; its final comes now, not after a silence."""
        self._audio.finalize()
        self._pushed.set()

    def finish(self) -> None:
        """No more audio: the events end after all finals."""
        self._audio.finish()
        self._pushed.set()

    async def _stream(self, audio: AsyncIterable[bytes]) -> None:
        async for piece in audio:
            await self.send(piece)
        self.finish()

    def _streamed(self, task: asyncio.Task[None]) -> None:
        if self._link and not task.cancelled() and task.exception():
            self._link.cut()

    # The events.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TranscriptionEvent:
        while not self._events:
            if self._failure:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            if self._streaming and self._streaming.done():
                self._streaming.result()
            await self._advance()
        return self._events.popleft()

    async def _advance(self) -> None:
        try:
            if self._link:
                await self._receive(self._link)
            else:
                await self._reconnect()
        except TranscriptionError as error:
            self._failure = error
            await self._end()

    async def _receive(self, link: Link) -> None:
        """One message, or what is due when none comes."""
        try:
            async with asyncio.timeout_at(min(link.mute_at, self._move_at or link.mute_at)):
                frame = await link.frame()
        except TimeoutError:
            return await (self._move(link) if self._move_at else self._lose("no answer"))
        if frame is None:
            return await self._on_closed(link.close_code)
        self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        if event := self._seen.on(frame):
            self._events.append(event)
        if "resume" in frame or self._now() > self._steady_at:
            self._outage = None
        self._confirm(frame)
        self._plan_move(frame["type"] == "final")
        self._pushed.set()  # the server's progress may permit more

    def _confirm(self, frame: Frame) -> None:
        if self._seen.token is None:  # it cannot be resumed, so nothing is kept for that
            self._audio.confirm(self._seen.progress_ms)
        elif "resume" in frame:
            self._audio.confirm(frame["resume_from_ms"])
        self._room.set()

    async def _on_closed(self, code: int) -> None:
        if last := self._seen.ended(code):
            self._events.append(last)
            await self._end()
        else:
            await self._lose(f"closed with {code}")

    async def _end(self) -> None:
        self._over = True
        self._room.set()
        await self._leave()

    # Connections.

    async def _lose(self, reason: str) -> None:
        self._outage = self._outage or Outage(self._now(), self._patience_s)
        self._retry(reason, self._outage.wait_s())
        await self._leave()

    def _retry(self, reason: str, wait_s: float) -> None:
        self._events.append(Reconnecting(reason, wait_s))
        self._retry_at = self._now() + wait_s

    async def _leave(self) -> None:
        link, self._link = self._link, None
        if link:
            await link.close()

    async def _reconnect(self) -> None:
        """In a task of its own: a reader's time limit may be shorter than a handshake."""
        task = self._connecting = self._connecting or asyncio.create_task(self._connect())
        await asyncio.wait([task])
        self._connecting = None
        task.result()

    async def _connect(self) -> None:
        """Raises what makes it impossible."""
        outage = self._outage or Outage(self._now(), self._patience_s)
        self._outage = outage
        await asyncio.sleep(self._retry_at - self._now())
        try:
            socket, session = await self._opened()
        except TranscriptionError as error:
            return self._retry(str(error), outage.wait_after_s(error, self._now(), self._started))
        self._join(socket, session)
        self._events.append(self._first_event(session, outage))

    def _first_event(self, session: Frame, outage: Outage) -> TranscriptionEvent:
        if self._started:
            from_ms = session.get("resumed_from_ms", 0)
            return ConnectionResumed(from_ms, self._now() - outage.began)
        self._started = True
        return started(session)

    async def _opened(self) -> tuple[ClientConnection, Frame]:
        """A connection that continues the session, or begins it while nothing is final."""
        if self._seen.token is None and not self._can_begin:
            raise ResumeRefused("resume_refused", "the server cannot continue this session")
        socket = await dial(self._server, PATH, self._headers)
        try:
            session = await greeted(socket, self._start())
            if not self._audio.holds(session.get("resumed_from_ms", 0)):
                raise ResumeRefused("resume_refused", "the server asks for audio that is gone")
            return socket, session
        except BaseException as error:
            await socket.close()
            if isinstance(error, ResumeRefused) and self._seen.token and self._can_begin:
                self._seen.token = None
                return await self._opened()
            raise

    @property
    def _can_begin(self) -> bool:
        """Whether a new session would hear every word, and none of them twice."""
        return self._audio.complete and not self._seen.any_final

    def _start(self) -> Frame:
        token = self._seen.token
        return {"type": "start", "resume": token} if token else self._options.start()

    def _join(self, socket: ClientConnection, session: Frame) -> None:
        self._events += self._seen.joined(session)
        self._audio.rewind(self._seen.progress_ms)
        longest_ms = session["limits"]["max_utterance_ms"] + SPARE_MS
        self._audio.most_ms = max(self._audio.most_ms, longest_ms)
        self._link = Link(socket, session, self._audio, self._seen, self._pushed)
        self._steady_at = self._now() + STEADY_S
        self._move_at = None

    # A server that stops.

    def _plan_move(self, after_final: bool) -> None:
        if not (self._seen.draining and self._seen.quiet):
            self._move_at = None
        elif self._move_at is None:
            within_s = MOVE_AFTER_FINAL_S if after_final else MOVE_WITHIN_S
            self._move_at = max(self._now() + random.uniform(0, within_s), self._stay_until)

    async def _move(self, link: Link) -> None:
        """To another server, if one takes the session; else stay until this one closes."""
        self._move_at = None
        self._seen.contested = True
        try:
            opened = await self._opened()
        except TranscriptionError as error:
            wait_s = error.retry_after_s if isinstance(error, HandshakeRefused) else 0.0
            self._stay_until = self._now() + max(MOVE_WITHIN_S, wait_s)
            return
        await link.close()
        self._join(*opened)

    # Beginning and end.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._streaming, self._connecting) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
