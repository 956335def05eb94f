"""The last hour: samples of one replica, and those of several together."""

import asyncio
import time
from typing import Any

import httpx2 as httpx
import pytest

from serve_app.observability import history, node
from serve_app.observability.history import KEPT, Sampler, merged, ring
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import FINAL_SECONDS, LEVEL, SESSIONS_REFUSED
from tests.fakes import served
from tests.waiting import wait_for


async def jobs() -> dict[str, int | None]:
    return {"waiting": 3, "running": None}


def test_a_sample_has_what_came_since_the_one_before() -> None:
    async def story() -> None:
        samples, metrics = ring(), Metrics()
        taken = Sampler(samples, metrics, jobs)
        metrics.count(SESSIONS_REFUSED, by=2)
        metrics.observe(FINAL_SECONDS, 0.1)
        await taken.take(10)
        metrics.count(SESSIONS_REFUSED)
        await taken.take(20)
        first, second = merged([samples], 0)
        assert (first["refused"], second["refused"]) == (2, 1)
        assert first["p50_ms"] == pytest.approx(100, abs=50) and second["p50_ms"] is None
        assert first["jobs_queued"] == 3 and first["jobs_running"] is None
        assert first["memory_bytes"] > 0 and first["gpu_percent"] is None
        assert [it["at"] for it in merged([samples], 10)] == [20]

    asyncio.run(story())


def test_replicas_are_added_up_and_machines_counted_once() -> None:
    async def story() -> None:
        both = [ring(), ring()]
        for samples in both:
            metrics = Metrics()
            metrics.watch(LEVEL, lambda: 2)
            metrics.count(SESSIONS_REFUSED, by=2)
            metrics.observe(FINAL_SECONDS, 0.1)
            await Sampler(samples, metrics, jobs).take(10)
        await Sampler(both[1], Metrics(), jobs).take(20)  # a replica that began later, or ended
        together, alone = merged(both, 0)
        assert (together["refused"], together["quality_level"]) == (4, 2)
        assert together["jobs_queued"] == 3, "all replicas count the same jobs"
        machine = both[0][0]["machine"]["memory_bytes"]
        assert together["memory_bytes"] == pytest.approx(machine, rel=0.2)
        assert alone["at"] == 20

    asyncio.run(story())


def test_an_hour_is_all_that_is_kept() -> None:
    samples = ring()
    samples.extend({"at": at} for at in range(KEPT + 5))
    assert len(samples) == KEPT


def test_a_sample_takes_no_time_of_the_event_loop() -> None:
    async def story() -> float:
        taken = Sampler(ring(), Metrics(), jobs)
        await taken.take(0)
        began = time.thread_time()
        for at in range(20):
            await taken.take(at)
        return (time.thread_time() - began) / 20

    assert asyncio.run(story()) < 0.005


def test_a_machine_that_gives_no_numbers_leaves_a_gap(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a GPU does that is shared (MIG): NVML raises. The server goes on, and says so once."""
    usage, failures = node.usage, 2

    def fails_twice() -> dict[str, Any]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise RuntimeError("not supported")
        return usage()

    monkeypatch.setattr(history, "INTERVAL_S", 1)
    monkeypatch.setattr(node, "usage", fails_twice)

    async def story() -> None:
        samples = ring()
        running = asyncio.create_task(Sampler(samples, Metrics(), jobs).run())
        async with asyncio.timeout(20):
            while not samples:
                await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(story())
    assert [record.message for record in caplog.records] == ["sample_failed"]


def test_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "INTERVAL_S", 1)
    with served() as address:
        url = f"http://{address}/v1/metrics/history"
        wait_for(lambda: len(httpx.get(url).json()["samples"]) > 1, 20)
        answer = httpx.get(url, params={"seconds": 60}).json()
        assert answer["object"] == "metrics_history" and answer["replicas"] == 1
        times = [it["at"] for it in answer["samples"]]
        assert times == sorted(times)
        for wrong in ("0", "x", "100000"):
            assert httpx.get(url, params={"seconds": wrong}).status_code in (400, 422)
