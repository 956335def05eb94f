"""A load generator for more sessions than fit: all ask at once, or one after the other in a ramp.

Whoever is admitted sends audio until the end; whoever is refused stays away. Latencies are reported
for each phase of the run. Run as a process: a JSON plan on argv, a JSON result on stdout.
"""

import asyncio
import json
import sys
from bisect import bisect
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop
from picows import WSError, WSTransport, ws_connect

from loadtest.generator import LATE_MS, Client, Load, Plan
from loadtest.percentile import percentile
from serve_app.client.key import key_headers

QUIET_S = 0.5
"""The latencies of this long together say whether all is normal again."""

NORMAL_MS = 100.0

ASKING_AT_ONCE = 50
"""Handshakes under way: with more, the generator would measure how long it takes itself."""


@dataclass(frozen=True)
class CrowdPlan(Plan):
    ramp_s: float = 0.0
    """All sessions ask within this time."""
    phases_s: tuple[float, ...] = ()
    """Where one phase of the run ends and the next begins."""
    engine_ms: float = 50.0


@dataclass
class CrowdResult:
    asked: int = 0
    admitted: int = 0
    refused: int = 0
    """With 503 and Retry-After, or 1013."""
    failed: int = 0
    """Neither."""
    dropped: int = 0
    """Admitted, and closed before the end."""
    refusal_p50_ms: float = 0.0
    refusal_p99_ms: float = 0.0
    refusal_max_ms: float = 0.0
    p50_ms: list[float] = field(default_factory=list)
    """Of each phase, beyond the engine."""
    p99_ms: list[float] = field(default_factory=list)
    unanswered: int = 0
    """Chunks in speech that got no transcript."""
    highest_level: int = 0
    normal_after_s: float | None = None
    """From the end of the last phase but one: no audio late, nothing left out."""
    sent_late_p99_ms: float = 0.0
    honest: bool = True
    errors: dict[str, int] = field(default_factory=dict)


class Guest(Client):
    """One session, which may be refused."""

    crowd: "Crowd"
    lost = False

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self.lost = not self.crowd.is_over

    def hear(self, event: bytes) -> None:
        if event.startswith(b'{"type":"quality"'):
            self.crowd.levels.append((self.crowd.loop.time(), json.loads(event)["level"]))
        super().hear(event)


class Crowd(Load):
    """All who ask."""

    plan: CrowdPlan

    def __init__(self, plan: CrowdPlan) -> None:
        super().__init__(plan)
        self.is_over = False
        self.asking = asyncio.Semaphore(ASKING_AT_ONCE)
        self.seen = CrowdResult(asked=plan.sessions)
        self.covered_at: list[float] = []
        self.levels: list[tuple[float, int]] = []
        self.refusals: list[float] = []

    def cover(self, client: Client, begin: int, end: int) -> None:
        super().cover(client, begin, end)
        new = len(self.latencies) - len(self.covered_at)
        self.covered_at += [self.loop.time()] * new

    async def run_crowd(self) -> CrowdResult:
        period = len(self.audio) // 32 - self.plan.chunk_ms
        guests = [Guest(self, i * period // self.plan.sessions) for i in range(self.plan.sessions)]
        began = self.loop.time()
        self.counts_from = began + self.plan.warm_up_s
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.send(guests, began))  # type: ignore[arg-type]
            for number, guest in enumerate(guests):
                guest.crowd = self
                due = began + number * self.plan.ramp_s / len(guests)
                tasks.create_task(self.ask(guest, due))
        await asyncio.sleep(0.5)
        self.is_over = True
        return self.report(guests, began)

    async def ask(self, guest: Guest, due: float) -> None:
        await asyncio.sleep(max(0.0, due - self.loop.time()))
        async with self.asking:
            await self.ask_now(guest)

    async def ask_now(self, guest: Guest) -> None:
        asked_at = self.loop.time()
        try:
            await ws_connect(lambda: guest, self.plan.url, extra_headers=key_headers())
            self.seen.admitted += 1
        except WSError as error:
            took_ms = (self.loop.time() - asked_at) * 1000
            response = getattr(error, "response", None)
            if response and response.status == 503 and "Retry-After" in response.headers:
                self.seen.refused += 1
                self.refusals.append(took_ms)
            else:
                self.fail(str(response and response.status))
        except OSError as error:
            self.fail(type(error).__name__)

    def fail(self, why: str) -> None:
        self.seen.failed += 1
        self.seen.errors[why] = self.seen.errors.get(why, 0) + 1

    def report(self, guests: list[Guest], began: float) -> CrowdResult:
        seen, refusals = self.seen, sorted(self.refusals)
        seen.dropped = sum(guest.lost for guest in guests)
        seen.refusal_p50_ms = percentile(refusals, 0.5)
        seen.refusal_p99_ms = percentile(refusals, 0.99)
        seen.refusal_max_ms = percentile(refusals, 1.0)
        for phase in self.phases(began):
            seen.p50_ms.append(max(0.0, percentile(phase, 0.5) - self.plan.engine_ms))
            seen.p99_ms.append(max(0.0, percentile(phase, 0.99) - self.plan.engine_ms))
        seen.highest_level = max((level for _, level in self.levels), default=0)
        if self.plan.phases_s:
            seen.normal_after_s = self.normal_after(began + self.plan.phases_s[-1])
        seen.sent_late_p99_ms = percentile(sorted(self.late), 0.99)
        seen.honest = seen.sent_late_p99_ms <= LATE_MS
        seen.errors |= self.result.errors
        for guest in guests:
            if guest.transport is not None:
                guest.transport.disconnect()
        return seen

    def phases(self, began: float) -> list[list[float]]:
        """Sorted latencies of each phase, by when the audio was covered."""
        ends = [began + end for end in self.plan.phases_s]
        phases: list[list[float]] = [[] for _ in range(len(ends) + 1)]
        for at, latency in zip(self.covered_at, self.latencies, strict=True):
            phases[bisect(ends, at)].append(latency)
        return [sorted(phase) for phase in phases]

    def normal_after(self, since: float) -> float:
        """Seconds until no later stretch was late and no level above 0 was announced."""
        limit = NORMAL_MS + self.plan.engine_ms
        by_stretch: dict[int, list[float]] = {}
        for at, latency in zip(self.covered_at, self.latencies, strict=True):
            if at >= since:
                by_stretch.setdefault(int((at - since) / QUIET_S), []).append(latency)
        late = [n for n, some in by_stretch.items() if percentile(sorted(some), 0.99) > limit]
        last_zero = max((at - since for at, level in self.levels if not level), default=0.0)
        return round(max(0.0, last_zero, (max(late, default=-1) + 1) * QUIET_S), 2)


async def main(plan: dict[str, Any]) -> None:
    plan["phases_s"] = tuple(plan["phases_s"])
    print(json.dumps(asdict(await Crowd(CrowdPlan(**plan)).run_crowd())))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
