"""A server of `WS /v1/transcribe/stream` that follows a script, and checks what it is sent.

Speech is at fixed places of the audio: one second in every two. The samples count from 0, so that
the server knows which audio it got: whoever resumes must send exactly what was asked for. Each
connection has a `Plan`; those beyond the script go well.
"""

import asyncio
import contextlib
import http
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import websockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

RATE = 16_000
WRAP = 65_521
"""Sample `n` is `n % WRAP`."""
PERIOD_MS, VOICE_MS, HANG_MS = 2_000, (400, 1_400), 200
STEP_MS = 20
AHEAD_MS = 4_000


@dataclass
class Plan:
    """What happens to one connection."""

    refuse: int | None = None
    """HTTP status of the handshake."""
    retry_after_s: int | None = None
    error: str | None = None
    """Code of an error that answers `start`; fatal if it has a close code."""
    cut_at_ms: int | None = None
    """The connection ends when the session's audio has come so far."""
    close: int | None = None
    """With this close code; None: without a word."""
    error_at_cut: str | None = None
    drain_at_ms: int | None = None
    quality_at_ms: int | None = None
    vanish: bool = False
    """It ends without a word when it has taken the session from the older connection."""
    tokens: bool = True
    """Its session can be resumed."""
    mute_at_ms: int | None = None
    """From here on it says nothing, but keeps the connection."""


def samples(from_ms: int, until_ms: int) -> bytes:
    """The session's audio, as every client sends it."""
    at = np.arange(from_ms * RATE // 1000, until_ms * RATE // 1000) % WRAP
    return bytes(at.astype("<u2").tobytes())


CLOSES = {
    "session_resumed": 1008,
    "too_many_sessions": 1013,
    "overloaded": 1013,
    "idle_timeout": 1008,
}


@dataclass
class FakeServer:
    """`url` is where it listens. What it saw: handshakes, starts, and errors in the audio."""

    script: list[Plan]
    url: str = ""
    handshakes: list[float] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    finalized: list[int] = field(default_factory=list)
    asked: int = 0
    """For its progress."""
    open: "_Connection | None" = None

    def plan(self) -> Plan:
        return self.script.pop(0) if self.script else Plan()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(asyncio.get_running_loop().time())
        plan = self.script[0] if self.script else Plan()
        if plan.refuse is None:
            return None
        self.script.pop(0)
        answer = connection.respond(http.HTTPStatus(plan.refuse), "{}")
        if plan.retry_after_s is not None:
            answer.headers["Retry-After"] = str(plan.retry_after_s)
        return answer

    async def serve(self, socket: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed, _Gone):
            await _Connection(self, socket, self.plan()).run()


@asynccontextmanager
async def scripted(*script: Plan) -> AsyncIterator[FakeServer]:
    fake = FakeServer(list(script))
    async with serve(fake.serve, "127.0.0.1", 0, process_request=fake.check) as server:
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake


class _Gone(Exception):
    """The plan ended the connection."""


class _Connection:
    """One connection, from `start` to its end."""

    def __init__(self, server: FakeServer, socket: ServerConnection, plan: Plan) -> None:
        self._server = server
        self._socket = socket
        self._plan = plan
        self._received = self._judged = 0
        """Samples; ms."""
        self._utterance = self._said = 0
        self._ended_ms = 0
        self._spoken_until_ms = 0
        self._speaking = False
        self._draining = False

    async def run(self) -> None:
        await self._session()
        await self._start(json.loads(await self._socket.recv()))
        async for message in self._socket:
            if isinstance(message, bytes):
                await self._audio(message)
            else:
                await self._command(json.loads(message)["type"])

    # From the client.

    async def _start(self, start: dict[str, Any]) -> None:
        self._server.starts.append(start)
        if self._plan.error:
            await self._error(self._plan.error)
        resumed = None
        if token := start.get("resume"):
            resumed, self._utterance, self._ended_ms = map(int, token.split("/"))
            self._received, self._judged = resumed * RATE // 1000, self._ended_ms
            if older := self._server.open:
                await older.fence()
        if self._plan.vanish:
            await self._end(None)
        self._server.open = self
        await self._session(resumed)

    async def _audio(self, audio: bytes) -> None:
        got = np.frombuffer(audio, "<u2")
        wanted = np.arange(self._received, self._received + len(got)) % WRAP
        if not np.array_equal(got, wanted):
            self._server.wrong.append(f"at sample {self._received}: {got[0]} for {wanted[0]}")
        self._received += len(got)
        if self._received_ms - self._judged > AHEAD_MS:
            self._server.wrong.append(f"{self._received_ms - self._judged} ms ahead")
        while self._judged + STEP_MS <= self._received_ms:
            self._judged += STEP_MS
            await self._judge(self._judged)

    @property
    def _received_ms(self) -> int:
        return self._received * 1000 // RATE

    async def _command(self, command: str) -> None:
        match command:
            case "keepalive":
                self._server.asked += 1
                await self._send("keepalive", audio_ms=self._judged)
            case "finalize":
                self._server.finalized.append(self._received_ms)
                if self._speaking:
                    await self._final(self._judged)
            case "stop":
                if self._speaking:
                    await self._final(self._judged)
                await self._send("closed", session_id="s", metrics={"audio_ms": self._received_ms})
                await self._socket.close()

    # What is in the audio.

    async def _judge(self, at_ms: int) -> None:
        begins, ends = (self._utterance_at(at_ms) * PERIOD_MS + edge for edge in VOICE_MS)
        if self._utterance == self._utterance_at(at_ms):
            if not self._speaking and begins <= at_ms < ends:
                self._speaking = True
                await self._send("speech_started", audio_ms=max(begins, self._ended_ms))
            if self._speaking and at_ms % 200 == 0 and at_ms <= ends:
                await self._transcript("partial", at_ms, words=1 + (at_ms - begins) // 400)
            if self._speaking and at_ms == ends + HANG_MS:
                await self._send("speech_ended", audio_ms=at_ms)
                await self._final(at_ms)
        await self._follow_plan(at_ms)

    def _utterance_at(self, at_ms: int) -> int:
        return at_ms // PERIOD_MS

    async def _follow_plan(self, at_ms: int) -> None:
        plan = self._plan
        if at_ms == plan.quality_at_ms:
            await self._send("quality", level=2, reason="busy")
        if at_ms == plan.drain_at_ms:
            await self._send("draining", deadline_ms=30_000, **self._token())
        if at_ms == plan.mute_at_ms:
            await self._socket.wait_closed()
            raise _Gone
        if at_ms == plan.cut_at_ms:
            if plan.error_at_cut:
                await self._error(plan.error_at_cut)
            await self._end(plan.close)

    # To the client.

    async def _final(self, at_ms: int) -> None:
        self._speaking = False
        words = 3
        self._ended_ms, number = at_ms, self._utterance
        self._utterance += 1
        await self._transcript("final", at_ms, words, number, **self._token())

    async def _transcript(
        self, kind: str, at_ms: int, words: int, number: int | None = None, **more: Any
    ) -> None:
        number = self._utterance if number is None else number
        said = [f"word{number}.{n}" for n in range(words)]
        start_ms = number * PERIOD_MS + VOICE_MS[0]
        shown = [
            {"word": word, "start_ms": start_ms, "end_ms": at_ms, "confidence": 1.0}
            for word in said
        ]
        await self._send(
            kind,
            text=" ".join(said),
            timestamp=0.0,
            audio_ms=at_ms,
            start_ms=start_ms,
            end_ms=at_ms,
            utterance=number,
            confidence=1.0,
            words=shown,
            engine="fake",
            **more,
        )

    def _token(self) -> dict[str, Any]:
        if not self._plan.tokens:
            return {}
        from_ms = max(0, self._ended_ms - 500) // 1000 * 1000
        return {
            "resume": f"{from_ms}/{self._utterance}/{self._ended_ms}",
            "resume_from_ms": from_ms,
        }

    async def _session(self, resumed_from_ms: int | None = None) -> None:
        resumed = {} if resumed_from_ms is None else {"resumed_from_ms": resumed_from_ms}
        limits = {"max_buffered_audio_ms": AHEAD_MS, "max_utterance_ms": 20_000}
        await self._send(
            "session",
            session_id="s",
            engine="fake",
            sample_rate=RATE,
            encoding="pcm_s16le",
            channels=1,
            language=None,
            interim_results=True,
            limits=limits,
            **resumed,
            **self._token(),
        )

    async def fence(self) -> None:
        with contextlib.suppress(_Gone, websockets.ConnectionClosed):
            await self._error("session_resumed")

    async def _error(self, code: str) -> None:
        close = CLOSES.get(code)
        await self._send("error", code=code, message=f"it is {code}", fatal=close is not None)
        if close:
            await self._send("closed", session_id="s", metrics={"audio_ms": self._received_ms})
            await self._end(close)

    async def _end(self, close: int | None) -> None:
        if close is None:
            self._socket.transport.abort()
        else:
            await self._socket.close(close)
        raise _Gone

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind, **fields}))


def finals(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "final"]
