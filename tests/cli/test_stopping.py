"""What the child of `voxray run` does with its supervisor's orders. Without Ray."""

import asyncio
import os
import threading

import pytest

from serve_app.cli import stopping
from serve_app.cli.stopping import Orders, drain


def ordered() -> tuple[Orders, int]:
    """Of a server that has started, and the supervisor's end of the pipe."""
    read, write = os.pipe()
    orders = Orders(read)
    orders.started.set()
    return orders, write


def test_a_byte_means_drain_and_the_end_means_stop() -> None:
    orders, write = ordered()
    os.write(write, b"d")
    assert orders.drain.wait(5) and not orders.stop.is_set()
    os.close(write)
    assert orders.stop.wait(5)


def test_without_its_supervisor_it_stops_at_once() -> None:
    orders, write = ordered()
    os.close(write)
    assert orders.drain.wait(5) and orders.stop.wait(5)


@pytest.mark.parametrize("outcome", ["drained", "failed"])
def test_a_drain_returns_when_the_replicas_have_drained(
    monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    async def replicas(within_s: float) -> None:
        assert within_s == 30
        if outcome == "failed":
            raise RuntimeError("no controller")

    monkeypatch.setattr(stopping, "_drain_replicas", replicas)
    drain(threading.Event(), 30)


def test_a_drain_returns_when_it_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def replicas(_: float) -> None:
        stop.set()
        await asyncio.sleep(60)

    stop = threading.Event()
    monkeypatch.setattr(stopping, "_drain_replicas", replicas)
    drain(stop, 60)
