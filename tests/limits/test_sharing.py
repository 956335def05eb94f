"""Ingress replicas share limits in a real Redis, which is killed, frozen and comes back."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.sync.client import connect

from serve_app.config import Config
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.limits import shared_store, sharing
from serve_app.limits.account import Open
from serve_app.limits.lease import Lease
from serve_app.limits.limiter import Limiter
from serve_app.limits.settings import TenantSettings
from serve_app.limits.shared_store import Granted, Opened, SharedStore
from serve_app.observability.metrics import Metrics
from tests.fakes import served
from tests.limits.test_doors import LIVE, limits, opens, read
from tests.limits.test_limiter import ACME, FIRST, SECOND, SESSION, Ledger, refused
from tests.stores import Redis, redis_server
from tests.waiting import unchanged, until, wait_for


@pytest.fixture
def redis() -> Iterator[Redis]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def replica(redis: Redis, **acme: Any) -> AsyncIterator[Limiter]:
    settings = TenantSettings(Config(tenants={"acme": acme}).tenants)
    store = SharedStore(redis.url, uuid.uuid4().hex)
    limiter = Limiter(settings, Metrics(), lambda: 5, store=store)
    running = asyncio.create_task(limiter.run(Ledger({})))
    await until(lambda: not limiter.is_unshared)
    try:
        yield limiter
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def two(redis: Redis, **acme: Any) -> AsyncIterator[tuple[Limiter, Limiter]]:
    async with replica(redis, **acme) as one, replica(redis, **acme) as other:
        yield one, other


def taken(limiter: Limiter, caller: Principal = ACME) -> Lease | None:
    try:
        return limiter.session(caller, SESSION)
    except ClientError:
        return None


def is_full(limiter: Limiter) -> bool:
    lease = taken(limiter)
    if lease:
        lease.release()
    return lease is None


async def took(limiter: Limiter) -> Lease:
    """Once there is a place."""
    lease = await until(lambda: taken(limiter))
    assert lease
    return lease


def test_what_is_open_on_one_replica_counts_on_the_other(redis: Redis) -> None:
    async def go() -> None:
        async with two(redis, limits={"sessions": 3}) as (one, other):
            held = [one.session(ACME, SESSION), one.session(ACME, SESSION)]
            await took(other)
            await until(lambda: is_full(one) and is_full(other))
            error = refused(other, other.session, ACME, SESSION)
            assert error.code == "rate_limit_exceeded"
            held[0].release()
            await took(other)

    asyncio.run(go())


def test_who_was_second_is_ended_with_an_error(redis: Redis) -> None:
    async def go() -> None:
        async with two(redis, limits={"sessions": 3}) as both:
            ended = list[ClientError]()
            for limiter in both:
                for _ in range(2):
                    lease = limiter.session(ACME, SESSION)
                    lease.end = ended.append
            await until(lambda: ended)
            await unchanged(lambda: len(ended), 1.0)
            assert [error.code for error in ended] == ["rate_limit_exceeded"]

    asyncio.run(go())


def test_a_replica_that_is_killed_leaves_nothing_open(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_store, "ENTRY_S", 1.0)

    async def go() -> None:
        killed = SharedStore(redis.url, "killed")
        assert await killed.report([Opened("sessions:acme:", 1, 1)]) == [Granted(1, 0)]
        await killed.close()
        async with replica(redis, limits={"sessions": 1}) as other:
            await until(lambda: is_full(other))
            await took(other)

    asyncio.run(go())


def test_a_replica_that_ends_gives_back_at_once(redis: Redis) -> None:
    async def go() -> None:
        async with replica(redis, limits={"sessions": 1}) as other:
            async with replica(redis, limits={"sessions": 1}) as ended:
                ended.session(ACME, SESSION)
                await until(lambda: is_full(other))
            await until(lambda: taken(other), 3)

    asyncio.run(go())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test machine may be slower than a request waits."""
    monkeypatch.setattr(sharing, "ASK_S", 5.0)


def test_no_request_too_many_passes_on_all_replicas_together(redis: Redis, patient: None) -> None:
    async def go() -> None:
        async with two(redis, limits={"requests_per_minute": 10}) as both:
            asked = [limiter.requested(ACME) for limiter in both for _ in range(20)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert answers.count(None) == 10
            assert {it.code for it in answers if isinstance(it, ClientError)} == {
                "rate_limit_exceeded"
            }
            for limiter in both:
                assert limiter.headers(ACME)["x-ratelimit-remaining-requests"] == "0"

    asyncio.run(go())


def test_handshakes_on_another_replica_are_known_soon(redis: Redis) -> None:
    async def go() -> None:
        async with two(redis, limits={"requests_per_minute": 10}) as (one, other):
            for _ in range(4):
                one.session(ACME, SESSION)
            other.request(ACME)
            left = "x-ratelimit-remaining-requests"
            await until(lambda: other.headers(ACME)[left] == one.headers(ACME)[left] == "5")

    asyncio.run(go())


def test_a_request_that_the_tenant_has_no_room_for_costs_the_key_nothing(
    redis: Redis, patient: None
) -> None:
    both = {"limits": {"requests_per_minute": 3}, "key_limits": {"requests_per_minute": 2}}

    async def go() -> None:
        async with two(redis, **both) as (one, other):
            for _ in range(2):
                await one.requested(FIRST)
            await one.requested(SECOND)
            for _ in range(5):
                with pytest.raises(ClientError):
                    await other.requested(SECOND)
            store = SharedStore(redis.url, "test")
            assert await store.counted("requests:acme:vx_2", 0) == 1
            assert await store.counted("requests:acme:", 0) == 3
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_redis_limits_hold_and_nobody_waits(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """First with what was known last, then each replica has its part."""
    monkeypatch.setattr(sharing, "ALONE_S", 0.5)
    monkeypatch.setattr(sharing, "EXCHANGE_S", 0.3)
    most = {"sessions": 4, "requests_per_minute": 1000}

    async def go() -> None:
        async with two(redis, limits=most) as (one, other):
            held = [one.session(ACME, SESSION)]
            await other.requested(ACME)
            await asyncio.sleep(1.2)  # until each knows that there are two
            redis.kill() if how == "killed" else redis.freeze(True)
            waits = [await waited(other) for _ in range(5)]
            assert max(waits) < 0.5
            await until(lambda: one.is_unshared and one.parts == 2)
            while lease := taken(one):
                held.append(lease)
            assert len(held) == 2, "a half of 4"
            redis.start() if how == "killed" else redis.freeze(False)
            await until(lambda: not one.is_unshared and one.parts == 1)
            held += [await took(one), await took(one)]
            await until(lambda: is_full(other))

    asyncio.run(go())


async def waited(limiter: Limiter) -> float:
    began = time.monotonic()
    await limiter.requested(ACME)
    limiter.session(ACME, SESSION).release()
    return time.monotonic() - began


def test_what_redis_forgets_is_told_again(redis: Redis) -> None:
    async def go() -> None:
        async with two(redis, limits={"sessions": 2}) as (one, other):
            for _ in range(2):
                one.session(ACME, SESSION)
            await until(lambda: is_full(other))
            redis.kill()
            redis.start()
            await until(lambda: not other.is_unshared)
            await asyncio.sleep(1.5)
            assert is_full(other)

    asyncio.run(go())


def test_reserved_audio_is_reserved_for_all(redis: Redis) -> None:
    async def go() -> None:
        async with two(redis, limits={"audio_seconds_per_day": 100}) as (one, other):
            held = [one.session(ACME, tuple(Open)), one.session(ACME, SESSION)]
            await until(lambda: is_full(other))
            for lease in held:
                lease.release()
            await took(other)

    asyncio.run(go())


def test_live_speech_needs_no_redis(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, speech: bytes
) -> None:
    monkeypatch.setenv("VOXRAY_REDIS_URL", redis.url)
    config = limits(sessions=1)
    with served(config) as one, served(config) as other, connect(f"ws://{one}{LIVE}") as socket:
        wait_for(lambda: not opens(other, LIVE))
        redis.kill()
        for at in range(0, len(speech), 3200):
            socket.send(speech[at : at + 3200])
        socket.send('{"type":"stop"}')
        events = list(read(socket))
        assert [it for it in events if it["type"] == "final"]
        assert not [it for it in events if it["type"] == "error"]
