"""The last hour of an ingress replica, and how the hours of several are merged.

A ring of fixed size, a sample each ten seconds at whole multiples of that, so that the samples of
replicas fit together. Plain data, because it goes from replica to replica.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from serve_app.observability import node, table
from serve_app.observability.histogram import Histogram, State
from serve_app.observability.metrics import Metrics, Total

log = logging.getLogger("voxray.observability")

INTERVAL_S = 10
LATE_S = 0.05
"""Timers may fire a little early; a sample would then be of the interval before, a second time."""

KEPT = 360
"""Samples: an hour."""

Sample = dict[str, Any]
"""`at` in seconds since 1970; what was refused, and the latencies of finals, since the sample
before; `machine` is `node.usage` in short; `jobs` are those of all replicas."""

Jobs = Callable[[], Awaitable[Mapping[str, int | None]]]
"""How many are `waiting` and `running`; None where nobody knows."""


Ring = deque[Sample]


def ring() -> Ring:
    return deque(maxlen=KEPT)


class Sampler:
    """Fills the ring while `run` runs."""

    def __init__(self, samples: Ring, metrics: Metrics, jobs: Jobs) -> None:
        self._samples = samples
        self._metrics = metrics
        self._jobs = jobs
        self._refused = 0.0
        self._finals = Histogram()
        self._failed = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S - time.time() % INTERVAL_S + LATE_S)
            await self._take_or_go_on(int(time.time()) // INTERVAL_S * INTERVAL_S)

    async def _take_or_go_on(self, at: int) -> None:
        try:
            await self.take(at)
        except Exception as error:  # a GPU that gives no numbers must not end the server
            if not self._failed:
                log.warning("sample_failed", extra={"cause": type(error).__name__})
            self._failed = True
        else:
            self._failed = False

    async def take(self, at: int) -> None:
        usage, jobs = await asyncio.gather(asyncio.to_thread(node.usage), self._jobs())
        total = Total([self._metrics.snapshot()])
        refused, finals = total.sum(table.SESSIONS_REFUSED), total.whole(table.FINAL_SECONDS)
        sample = {
            "at": at,
            "sessions": int(total.sum(table.SESSIONS_ACTIVE)),
            "conversations": int(total.sum(table.CONVERSATIONS_ACTIVE)),
            "refused": int(refused - self._refused),
            "quality_level": int(max(total.values(table.LEVEL).values(), default=0)),
            "finals": since(finals, self._finals).state(),
            "machine": _short(usage),
            "jobs": dict(jobs),
        }
        self._refused, self._finals = refused, finals
        self._samples.append(sample)


def since(now: Histogram, before: Histogram) -> Histogram:
    """What came between two states of one histogram."""
    new, old = now.state(), before.state()
    counts = tuple(a - b for a, b in zip(new.counts, old.counts, strict=True))
    return Histogram(State(counts, new.total - old.total, 0.0, new.most))


def merged(histories: Iterable[Iterable[Sample]], after: float) -> list[dict[str, Any]]:
    """The samples of all replicas after that time, the oldest first, added up."""
    at_once: dict[int, list[Sample]] = {}
    for history in histories:
        for sample in history:
            if sample["at"] > after:
                at_once.setdefault(sample["at"], []).append(sample)
    return [_together(at, at_once[at]) for at in sorted(at_once)]


def _together(at: int, samples: list[Sample]) -> dict[str, Any]:
    finals = Histogram()
    for sample in samples:
        finals.add(Histogram(sample["finals"]))
    return {
        "at": at,
        **{name: sum(it[name] for it in samples) for name in ("sessions", "conversations")},
        "refused": sum(it["refused"] for it in samples),
        "quality_level": max(it["quality_level"] for it in samples),
        "p50_ms": _ms(finals, 0.5),
        "p99_ms": _ms(finals, 0.99),
        "jobs_queued": _known(it["jobs"].get("waiting") for it in samples),
        "jobs_running": _known(it["jobs"].get("running") for it in samples),
        **_machines(list({it["machine"]["node"]: it["machine"] for it in samples}.values())),
    }


def _machines(machines: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares are means, sizes are sums."""
    gpus = [gpu for machine in machines for gpu in machine["gpus"]]
    return {
        "cpu_percent": _mean([it["cpu_percent"] for it in machines]),
        "memory_bytes": sum(it["memory_bytes"] for it in machines),
        "gpu_percent": _mean([percent for percent, _ in gpus]),
        "gpu_memory_bytes": sum(used for _, used in gpus) if gpus else None,
    }


def _short(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": usage["node"],
        "cpu_percent": usage["cpu"]["percent"],
        "memory_bytes": usage["memory"]["used_bytes"],
        "gpus": [(it["percent"], it["memory_used_bytes"]) for it in usage["gpus"]],
    }


def _ms(histogram: Histogram, share: float) -> float | None:
    return round(histogram.quantile(share) * 1000, 1) if histogram.count else None


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def _known(values: Iterable[int | None]) -> int | None:
    """The newest that somebody knows; all count the same jobs."""
    return max((it for it in values if it is not None), default=None)
