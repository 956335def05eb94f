"""A lean load generator: thousands of paced WebSocket sessions in one process (picows, Cython).

Sessions send chunks on a fixed schedule at any server speed. The latency of a chunk runs from
its scheduled sending to the first transcript whose `audio_ms` covers it; chunks before
`speech_started` are silence and have none. Run as a process: a JSON plan on argv, a JSON result
on stdout.
"""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from loadtest.percentile import percentile
from loadtest.speech import conversation
from serve_app.client.key import key_headers

LATE_MS = 20.0
"""A generator whose own sends are later than this at p99 measures itself."""

BYTES_PER_MS = 32
CONNECTING_AT_ONCE = 50


@dataclass(frozen=True)
class Plan:
    url: str
    sessions: int
    chunk_ms: int
    seconds: float
    warm_up_s: float
    echo: bool
    """The server answers each message with itself, instead of transcripts."""


@dataclass
class Result:
    sessions: int = 0
    held: int = 0
    """Sessions still open at the end."""
    refused: int = 0
    chunks: int = 0
    answered: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    sent_late_p99_ms: float = 0.0
    honest: bool = True
    events: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Client(WSListener):
    """One session."""

    def __init__(self, load: "Load", first: int) -> None:
        self.load = load
        self.first = first
        self.transport: WSTransport | None = None
        self.open = False
        self.sent: list[float] = []
        self.covered = 0
        self.speech = 0
        """The first chunk that is all speech."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.open = True

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.open = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif self.load.plan.echo:
            self.load.cover(self, self.covered, self.covered + 1)
        else:
            self.hear(frame.get_payload_as_bytes())

    def hear(self, event: bytes) -> None:
        chunk_ms = self.load.plan.chunk_ms
        if event.startswith((b'{"type":"partial"', b'{"type":"final"')):
            self.load.cover(self, self.speech, number_after(event, b'"audio_ms":') // chunk_ms)
        elif event.startswith(b'{"type":"speech_started"'):
            self.speech = -(-number_after(event, b'"audio_ms":') // chunk_ms)
        elif event.startswith(b'{"type":"error"'):
            code = json.loads(event)["code"]
            self.load.result.errors[code] = self.load.result.errors.get(code, 0) + 1


def number_after(event: bytes, key: bytes) -> int:
    start = event.index(key) + len(key)
    return int(event[start : event.index(b",", start)])


class Load:
    """All sessions, their schedule, and what was measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.audio = conversation()
        self.audio += self.audio[: plan.chunk_ms * BYTES_PER_MS]
        self.result = Result(sessions=plan.sessions)
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.counts_from = float("inf")

    def cover(self, client: Client, begin: int, end: int) -> None:
        """Chunks before `end` are covered now; those before `begin` were silence."""
        now = self.loop.time()
        self.result.events += 1
        for chunk in range(max(begin, client.covered), min(end, len(client.sent))):
            if client.sent[chunk] >= self.counts_from:
                self.latencies.append((now - client.sent[chunk]) * 1000)
        client.covered = max(client.covered, min(end, len(client.sent)))

    async def run(self) -> Result:
        clients = await self.connect()
        began = self.loop.time()
        self.counts_from = began + self.plan.warm_up_s
        await self.send(clients, began)
        await asyncio.sleep(0.5)
        return self.finish(clients)

    async def connect(self) -> list[Client]:
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        period = len(self.audio) // BYTES_PER_MS - self.plan.chunk_ms
        clients = [
            Client(self, i * period // self.plan.sessions) for i in range(self.plan.sessions)
        ]

        async def open_(client: Client) -> None:
            async with gate:
                try:
                    await ws_connect(lambda: client, self.plan.url, extra_headers=key_headers())
                except Exception:
                    self.result.refused += 1

        await asyncio.gather(*map(open_, clients))
        return [client for client in clients if client.open]

    async def send(self, clients: list[Client], began: float) -> None:
        """Every session once a round, evenly spread over it."""
        chunk_s = self.plan.chunk_ms / 1000
        rounds = int((self.plan.warm_up_s + self.plan.seconds) / chunk_s)
        for round_ in range(rounds):
            for place, client in enumerate(clients):
                due = began + (round_ + place / len(clients)) * chunk_s
                ahead = due - self.loop.time()
                if ahead > 0.0005:
                    await asyncio.sleep(ahead)
                elif place % 64 == 0:
                    await asyncio.sleep(0)
                self.send_chunk(client, round_, due)

    def send_chunk(self, client: Client, round_: int, due: float) -> None:
        if not client.open or client.transport is None:
            return
        now = self.loop.time()
        if now >= self.counts_from:
            self.late.append((now - due) * 1000)
            self.result.chunks += 1
        client.sent.append(due)
        period = len(self.audio) // BYTES_PER_MS - self.plan.chunk_ms
        at = (client.first + round_ * self.plan.chunk_ms) % period * BYTES_PER_MS
        chunk = self.audio[at : at + self.plan.chunk_ms * BYTES_PER_MS]
        client.transport.send(WSMsgType.BINARY, chunk)

    def finish(self, clients: list[Client]) -> Result:
        result, latencies = self.result, sorted(self.latencies)
        result.held = sum(client.open for client in clients)
        result.answered = len(latencies)
        result.p50_ms = percentile(latencies, 0.50)
        result.p95_ms = percentile(latencies, 0.95)
        result.p99_ms = percentile(latencies, 0.99)
        result.max_ms = percentile(latencies, 1.0)
        result.sent_late_p99_ms = percentile(sorted(self.late), 0.99)
        result.honest = result.sent_late_p99_ms <= LATE_MS
        for client in clients:
            if client.transport is not None:
                client.transport.disconnect()
        return result


async def main(plan: dict[str, Any]) -> None:
    result = await Load(Plan(**plan)).run()
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
