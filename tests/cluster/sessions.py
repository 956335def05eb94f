"""Live sessions at the speed of speech, many at once, and what became of each; and a visitor who
knocks all the time, to see for how long nobody gets in."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import websockets
from websockets.asyncio.client import connect

from tests.api.sockets.test_live_socket import PATH, chunks, words

CHUNK_MS = 100
KNOCK_S = 0.2
OPEN_S = 5.0


@dataclass
class Session:
    """One session: every event with the time at which it came, and how the socket closed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    code: int | None = None
    plays: int = 0
    """How often it has said its audio to the end."""

    @property
    def words(self) -> str:
        return words(self.events)

    @property
    def whole(self) -> bool:
        return self.code == 1000

    @property
    def gap_s(self) -> float:
        """The longest time between two events."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)

    async def run(self, address: str, pcm: bytes, ending: asyncio.Event) -> None:
        """Speak until the end of `pcm`, or, if that repeats it, until `ending`."""
        async with connect(f"ws://{address}{PATH}", max_size=None, open_timeout=20) as socket:
            hearing = asyncio.create_task(self._hear(socket))
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._speak(socket, pcm, ending)
                await socket.send('{"type":"stop"}')
            await asyncio.wait_for(hearing, 60)
            self.code = socket.close_code

    async def _speak(self, socket: Any, pcm: bytes, ending: asyncio.Event) -> None:
        began, sent = time.monotonic(), 0
        while True:
            for chunk in chunks(pcm, CHUNK_MS):
                await socket.send(chunk)
                sent += 1
                await asyncio.sleep(began + sent * CHUNK_MS / 1000 - time.monotonic())
            self.plays += 1
            if ending.is_set():
                return

    async def _hear(self, socket: Any) -> None:
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for frame in socket:
                self.events.append(json.loads(frame))
                self.at.append(time.monotonic())


def during(
    addresses: Sequence[str], pcm: bytes, what: Callable[[], object], after_s: float = 4.0
) -> list[Session]:
    """One session to each address says `pcm` again and again until `what` has returned; it is
    called once all have spoken for `after_s`."""

    async def go() -> list[Session]:
        sessions = [Session() for _ in addresses]
        ending = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                for session, address in zip(sessions, addresses, strict=True):
                    tasks.create_task(session.run(address, pcm, ending))
                    await asyncio.sleep(0.02)
                await asyncio.sleep(after_s)
                await asyncio.to_thread(what)
                ending.set()
        finally:
            ending.set()
        return sessions

    return asyncio.run(go())


class Visitor(threading.Thread):
    """Opens a session, waits for its first event, closes it, and comes back."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._left = threading.Event()
        self._served = [time.monotonic()]
        self.answers: dict[str, int] = {}

    def __enter__(self) -> "Visitor":
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
