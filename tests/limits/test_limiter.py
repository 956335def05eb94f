"""Limits of tenants and keys, without sockets."""

import asyncio
from typing import Any

import pytest

from serve_app.config import Config
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.limits.account import Now, Open
from serve_app.limits.limiter import Limiter
from serve_app.limits.settings import TenantSettings
from serve_app.observability.metrics import Metrics
from serve_app.usage.meter import Counted
from tests.waiting import until

ACME, OTHER = Principal("acme"), Principal("other")
FIRST, SECOND = Principal("acme", "vx_1"), Principal("acme", "vx_2")
SESSION = (Open.SESSIONS,)


class Clock:
    def __init__(self) -> None:
        self.at, self.day, self.replicas = 0.0, 1, 1

    def __call__(self) -> Now:
        return Now(self.at, self.day, self.replicas)


def limiter(clock: Clock | None = None, **acme: Any) -> Limiter:
    settings = TenantSettings(Config(tenants={"acme": acme}).tenants)
    return Limiter(settings, Metrics(), lambda: 5, clock or Clock())


def refused(limits: Limiter, ask: Any, *args: Any) -> ClientError:
    with pytest.raises(ClientError) as error:
        ask(*args)
    return error.value


def test_who_sends_too_fast_waits_and_has_used_nothing() -> None:
    clock = Clock()
    here = limiter(clock, limits={"requests_per_minute": 3})
    for _ in range(3):
        here.request(ACME)
    for _ in range(100):
        error = refused(here, here.request, ACME)
    assert (error.code, error.status) == ("rate_limit_exceeded", 429)
    assert error.message.startswith("requests_per_minute: this tenant may send 3 requests a minute")
    assert error.retry_after_s is not None
    clock.at += error.retry_after_s
    here.request(ACME)
    here.request(OTHER)


def test_a_key_has_a_limit_within_its_tenants() -> None:
    here = limiter(limits={"sessions": 3}, key_limits={"sessions": 2})
    held = [here.session(FIRST, SESSION), here.session(FIRST, SESSION)]
    assert "this key" in refused(here, here.session, FIRST, SESSION).message
    held.append(here.session(SECOND, SESSION))
    assert "this tenant" in refused(here, here.session, SECOND, SESSION).message
    held[0].release()
    here.session(SECOND, SESSION)


def test_a_refused_session_burns_nothing() -> None:
    here = limiter(limits={"sessions": 1, "requests_per_minute": 2, "audio_seconds_per_day": 100})
    lease = here.session(ACME, SESSION)
    for _ in range(50):
        refused(here, here.session, ACME, SESSION)
    assert here.headers(ACME)["x-ratelimit-remaining-requests"] == "1"
    lease.release()
    here.session(ACME, SESSION).release()
    assert "requests_per_minute" in refused(here, here.session, ACME, SESSION).message


def test_a_conversation_is_a_session_too() -> None:
    here = limiter(limits={"sessions": 2, "conversations": 1})
    talk = here.session(ACME, tuple(Open))
    assert "conversations" in refused(here, here.session, ACME, tuple(Open)).message
    here.session(ACME, SESSION)
    assert "sessions" in refused(here, here.session, ACME, SESSION).message
    talk.release()
    talk.release()
    here.session(ACME, tuple(Open))


def test_audio_is_reserved_ahead_and_settled_at_the_end() -> None:
    here = limiter(limits={"audio_seconds_per_day": 100})
    first, second = (here.session(ACME, SESSION) for _ in range(2))
    error = refused(here, here.session, ACME, SESSION)
    assert (error.code, error.status, error.close) == ("quota_exceeded", 429, 1008)
    assert error.retry_after_s is not None and 0 < error.retry_after_s <= 86_400
    here.used(ACME, Counted.AUDIO, 10)
    first.release()
    second.release()
    assert here.headers(ACME)["x-ratelimit-remaining-audio-seconds"] == "90"
    here.session(ACME, SESSION)


def test_work_that_needs_more_than_is_left_is_refused() -> None:
    here = limiter(limits={"characters_per_day": 10})
    with here.quota(ACME, Counted.CHARACTERS, 6):
        assert (
            "4 are left" in refused(here, here.quota(ACME, Counted.CHARACTERS, 6).__enter__).message
        )
        here.used(ACME, Counted.CHARACTERS, 6)
    with here.quota(ACME, Counted.CHARACTERS, 4):
        here.used(ACME, Counted.CHARACTERS, 4)
    assert (
        "nothing is left" in refused(here, here.quota(ACME, Counted.CHARACTERS).__enter__).message
    )


def test_what_fails_gives_back_what_it_reserved() -> None:
    here = limiter(limits={"characters_per_day": 10})
    with pytest.raises(ZeroDivisionError), here.quota(ACME, Counted.CHARACTERS, 10):
        raise ZeroDivisionError
    with here.quota(ACME, Counted.CHARACTERS, 10):
        pass


def test_a_new_day_begins_with_a_whole_quota() -> None:
    clock = Clock()
    here = limiter(clock, limits={"tokens_per_day": 10})
    here.used(ACME, Counted.TOKENS, 10)
    refused(here, here.check_quota, ACME, Counted.TOKENS)
    clock.day += 1
    here.check_quota(ACME, Counted.TOKENS)


def test_without_limits_nothing_is_refused_and_nothing_is_said() -> None:
    here = limiter()
    for _ in range(1000):
        here.request(OTHER)
        here.session(OTHER, tuple(Open))
    assert here.headers(OTHER) == {}
    assert here.rate_limits(OTHER) == []


def test_headers_are_those_of_the_nearer_limit() -> None:
    here = limiter(limits={"requests_per_minute": 10}, key_limits={"requests_per_minute": 3})
    here.request(FIRST)
    assert here.headers(FIRST) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "2m0s",
    }
    (told,) = here.rate_limits(FIRST)
    assert told == {"name": "requests", "limit": 3, "remaining": 2, "reset_seconds": 120.0}


def test_a_changed_limit_holds_at_once_and_remembers_what_is_used() -> None:
    settings = TenantSettings(Config(tenants={"acme": {"limits": {"sessions": 9}}}).tenants)
    here = Limiter(settings, Metrics(), lambda: 5, Clock())
    held = [here.session(ACME, SESSION) for _ in range(3)]
    settings.override({("acme", ""): {"sessions": 3}})
    refused(here, here.session, ACME, SESSION)
    held.pop().release()
    here.session(ACME, SESSION)
    settings.override({("acme", ""): {"sessions": 0}})
    here.session(ACME, SESSION)
    settings.override({})
    assert settings.of("acme").limits.sessions == 9


def test_rows_of_the_database_override_the_configuration_setting_by_setting() -> None:
    tenants = {
        "default": {"limits": {"sessions": 1}},
        "acme": {"weight": 2, "limits": {"sessions": 5, "conversations": 4}},
    }
    settings = TenantSettings(Config(tenants=tenants).tenants)
    settings.override(
        {
            ("acme", ""): {"sessions": 7},
            ("acme", "*"): {"sessions": 2},
            ("acme", "vx_1"): {"conversations": 1},
            ("default", ""): {"conversations": 8},
            ("acme", "vx_9"): {"from_the_future": 1},
        }
    )
    acme = settings.of("acme")
    assert acme.weight == 2
    assert (acme.limits.sessions, acme.limits.conversations) == (7, 4)
    assert settings.limits("acme", "vx_2").sessions == 2
    assert settings.limits("acme", "vx_1").conversations == 1
    assert settings.limits("acme", "vx_1").sessions == 2
    assert settings.limits("other", "").sessions == 1
    assert settings.limits("other", "").conversations == 8


class Ledger:
    def __init__(self, sums: dict[tuple[str, Counted], float]) -> None:
        self.sums = sums
        self.away = True

    async def of_today(self, tenant: str) -> dict[tuple[str, Counted], float]:
        if self.away:
            self.away = False
            raise ClientError("storage_unavailable", "away")
        return self.sums if tenant == "acme" else {}


def test_what_was_used_before_the_start_is_read_from_the_database() -> None:
    here = limiter(limits={"tokens_per_day": 10}, key_limits={"tokens_per_day": 5})
    here.check_quota(FIRST, Counted.TOKENS)
    ledger = Ledger({("vx_1", Counted.TOKENS): 4.0, ("vx_2", Counted.TOKENS): 4.0})

    async def read() -> None:
        running = asyncio.create_task(here.run(ledger))
        await until(lambda: here.headers(ACME)["x-ratelimit-remaining-tokens"] == "2")
        running.cancel()

    asyncio.run(read())
    assert here.headers(FIRST)["x-ratelimit-remaining-tokens"] == "1"


def test_who_has_nothing_left_is_ended_once() -> None:
    here = limiter(limits={"audio_seconds_per_day": 100})
    lease, ended = here.session(ACME, SESSION), list[ClientError]()
    lease.end = ended.append
    here.used(ACME, Counted.AUDIO, 100)

    async def wait() -> None:
        running = asyncio.create_task(here.run(Ledger({})))
        await until(lambda: bool(ended))
        await asyncio.sleep(1.5)
        running.cancel()

    asyncio.run(wait())
    assert [error.code for error in ended] == ["quota_exceeded"]
