"""Live sessions at the speed of speech, many at once, and what became of each; and a visitor who
knocks all the time, to see for how long nobody gets in."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import websockets
from websockets.asyncio.client import connect

from serve_app.client import ConnectionResumed, Final, LiveTranscription, Reconnecting, paced
from tests.api.sockets.test_live_socket import PATH, chunks, words

CHUNK_MS = 100
KNOCK_S = 0.2
OPEN_S = 5.0
CLOSED_NORMALLY = 1000
BYTES_PER_S = 32_000


@dataclass
class Session:
    """One session over one connection. It says its audio again and again until it is time to end."""

    address: str
    bytes_per_s: int = BYTES_PER_S
    words: str = ""
    at: list[float] = field(default_factory=list)
    """When something came."""
    plays: int = 0
    """How often it has said its audio to the end."""
    code: int | None = None
    connections: int = 1

    @property
    def whole(self) -> bool:
        return self.code == CLOSED_NORMALLY

    def heard_all_of(self, words: str) -> bool:
        """In order, none twice, as often as they were said."""
        return self.words == " ".join([words] * self.plays)

    def amiss(self, words: str) -> list[str]:
        """What differs from that: the words as they were said, and as they were heard."""
        said, heard = (words.split() * self.plays), self.words.split()
        changes = SequenceMatcher(None, said, heard, autojunk=False).get_opcodes()
        return [
            f"{place}: {said[place:end]} -> {heard[start:stop]}"
            for change, place, end, start, stop in changes
            if change != "equal"
        ]

    @property
    def gap_s(self) -> float:
        """The longest time in which nothing came."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)

    async def run(self, pcm: bytes, ending: asyncio.Event) -> None:
        url = f"ws://{self.address}{PATH}"
        async with connect(url, max_size=None, open_timeout=20) as socket:
            hearing = asyncio.create_task(self._hear(socket))
            with contextlib.suppress(websockets.ConnectionClosed):
                async for chunk in paced(self._audio(pcm, ending), self.bytes_per_s):
                    await socket.send(chunk)
                await socket.send('{"type":"stop"}')
            await asyncio.wait_for(hearing, 60)
            self.code = socket.close_code

    async def _audio(self, pcm: bytes, ending: asyncio.Event) -> AsyncIterator[bytes]:
        while not (self.plays and ending.is_set()):
            for chunk in chunks(pcm, CHUNK_MS):
                yield chunk
            self.plays += 1

    async def _hear(self, socket: Any) -> None:
        events: list[dict[str, Any]] = []
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for frame in socket:
                events.append(json.loads(frame))
                self.at.append(time.monotonic())
        self.words = words(events)


class LastingSession(Session):
    """The same by the reference client, which connects again and resumes."""

    async def run(self, pcm: bytes, ending: asyncio.Event) -> None:
        finals: list[str] = []
        async with LiveTranscription(f"http://{self.address}") as live:
            live.stream(paced(self._audio(pcm, ending)))
            async for event in live:
                if isinstance(event, ConnectionResumed):
                    self.connections += 1
                elif not isinstance(event, Reconnecting):
                    self.at.append(time.monotonic())
                if isinstance(event, Final):
                    finals.append(event.text)
        self.code = CLOSED_NORMALLY
        self.words = " ".join(finals)


async def _during(sessions: Sequence[Session], pcm: bytes, what: Callable[[], object]) -> None:
    ending = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(session.run(pcm, ending))
                await asyncio.sleep(0.02)  # not all in the same instant
            while not all(session.at for session in sessions):
                await asyncio.sleep(0.02)
            await asyncio.sleep(SETTLED_S)
            await asyncio.to_thread(what)
            ending.set()
    finally:
        ending.set()


SETTLED_S = 3.0
"""All sessions are in the middle of a sentence."""


def during(sessions: Sequence[Session], pcm: bytes, what: Callable[[], object]) -> None:
    """The sessions say `pcm` again and again while `what` happens, and to its end after that."""
    asyncio.run(_during(sessions, pcm, what))


def heard(address: str, pcm: bytes) -> str:
    """What is heard when it is said once, quickly."""
    session = Session(address, bytes_per_s=20 * BYTES_PER_S)
    ended = asyncio.Event()
    ended.set()
    asyncio.run(session.run(pcm, ended))
    return session.words


class Visitor(threading.Thread):
    """Opens a session, waits for its first event, closes it, and comes back."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._left = threading.Event()
        self._served: list[float] = []
        self.answers: dict[str, int] = {}

    def __enter__(self) -> "Visitor":
        self._served.append(time.monotonic())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()
        self._served.append(time.monotonic())

    def run(self) -> None:
        asyncio.run(self._knock())

    async def _knock(self) -> None:
        while not self._left.is_set():
            answer = await self._visit()
            self.answers[answer] = self.answers.get(answer, 0) + 1
            if answer == "served":
                self._served.append(time.monotonic())
            await asyncio.sleep(KNOCK_S)

    async def _visit(self) -> str:
        url = f"ws://{self._address}{PATH}"
        try:
            async with asyncio.timeout(OPEN_S), connect(url) as socket:
                await socket.recv()
                return "served"
        except websockets.InvalidStatus as refused:
            return str(refused.response.status_code)
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            return type(error).__name__

    @property
    def outage_s(self) -> float:
        """The longest time in which nobody was let in."""
        return max(b - a for a, b in zip(self._served, self._served[1:], strict=False))
