"""An identity provider's keys, kept up to date: rotation, outages, and servers that misbehave."""

import asyncio
import gzip
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serve_app.config.auth import AuthConfig, JwtConfig
from serve_app.errors import ClientError
from serve_app.identity import jwks, provider_keys
from serve_app.identity.authenticator import Authenticator
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database
from tests.identity.keys import admitted
from tests.identity.provider import Provider, in_file, key_set, provider, public_jwk, token
from tests.waiting import unchanged, until

OLD, NEW = public_jwk("RS256", "old"), public_jwk("RS256", "new")


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as here:
        here.body = key_set(OLD)
        yield here


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_keys, "RETRY_S", 0.05)
    monkeypatch.setattr(jwks.JwksFile, "every_s", 0.05)


@asynccontextmanager
async def accepting(config: JwtConfig) -> AsyncIterator[Authenticator]:
    known = Authenticator(AuthConfig(jwt=config), Database("sqlite+aiosqlite:///unused.db"))
    running = asyncio.create_task(known.run())
    try:
        yield known
    finally:
        assert not running.done(), "it goes on, whatever the provider does"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


def code(known: Authenticator, shown: str) -> str:
    try:
        known.authenticated(shown)
    except LoginRefused as refused:
        return refused.reason.value
    except ClientError as error:
        return error.code
    return ""


async def outcome(known: Authenticator, shown: str) -> Principal | RefusalReason:
    try:
        return await admitted(known, shown)
    except LoginRefused as refused:
        return refused.reason


def test_the_keys_are_read_once_and_remembered(idp: Provider) -> None:
    async def story() -> None:
        async with accepting(idp.config) as known:
            await until(lambda: not code(known, token(kid="old")))
            for number in range(20):
                assert not code(known, token(kid="old", sub=f"s{number}"))
            assert idp.asked == ["/jwks"]

    play(story)


def test_who_waits_a_moment_is_let_in_with_a_new_key_at_once(idp: Provider) -> None:
    async def story() -> None:
        async with accepting(idp.config) as known:
            old, new = token(kid="old"), token(kid="new")
            await until(lambda: not code(known, old))
            idp.body = key_set(OLD, NEW)
            callers = await asyncio.gather(*[outcome(known, new) for _ in range(10)])
            assert callers == [known.authenticated(new)] * 10
            assert len(idp.asked) == 2
            assert not code(known, old)

    play(story)


def test_a_key_that_is_gone_opens_nothing_even_to_whom_it_did(
    idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks.JwksUrl, "every_s", 0.05)

    async def story() -> None:
        async with accepting(idp.config) as known:
            old = token(kid="old")
            await until(lambda: not code(known, old))
            idp.body = key_set(NEW)
            await until(lambda: code(known, old) == "unknown")
            assert not code(known, token(kid="new"))

    play(story)


def test_unknown_keys_cause_one_reading_a_minute(
    idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with accepting(idp.config) as known:
            await until(lambda: not code(known, token(kid="old")))
            refused = await asyncio.gather(*[outcome(known, named(it)) for it in range(50)])
            assert set(refused) == {RefusalReason.UNKNOWN}
            await unchanged(lambda: len(idp.asked))
            assert len(idp.asked) == 2
            began = time.monotonic()
            await outcome(known, named(99))
            assert time.monotonic() - began < 1, "nobody waits for what does not come"
            monkeypatch.setattr(provider_keys, "UNKNOWN_S", 0.0)
            await outcome(known, named(100))
            assert len(idp.asked) == 3

    play(story)


def named(number: int) -> str:
    return token(kid=f"guess-{number % 3}", sub=str(number))


def test_a_provider_that_is_away_at_the_start_is_asked_until_it_is_there(
    idp: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    idp.status = 503

    async def story() -> None:
        async with accepting(idp.config) as known:
            await until(lambda: len(idp.asked) >= 3)
            assert code(known, token(kid="old")) == "auth_unavailable"
            assert code(known, "vx_anything") == "unknown"
            idp.status = 200
            await until(lambda: not code(known, token(kid="old")))

    with caplog.at_level(logging.INFO, "voxray.identity"):
        play(story)
    assert [it.message for it in caplog.records] == ["token_keys_unavailable", "token_keys_read"]
    assert caplog.records[0].cause == "HTTP 503"  # type: ignore[attr-defined]


def redirects(idp: Provider) -> None:
    idp.status, idp.headers = 302, {"location": f"{idp.url}/moved"}


def sends_too_much(idp: Provider) -> None:
    idp.body = key_set(NEW) + b" " * jwks.MAX_BYTES


def sends_too_much_and_says_so(idp: Provider) -> None:
    idp.headers = {"content-length": str(10**12)}


def sends_something_else(idp: Provider) -> None:
    idp.body = b"<html>please log in</html>"


def sends_no_usable_key(idp: Provider) -> None:
    idp.body = key_set(public_jwk("RS256", "old", use="enc"))


def compresses(idp: Provider) -> None:
    idp.body, idp.headers = gzip.compress(key_set(NEW)), {"content-encoding": "gzip"}


def answers_slowly(idp: Provider) -> None:
    idp.headers = {"content-length": str(len(idp.body) + 1)}


def is_forbidden(idp: Provider) -> None:
    idp.status = 403


@pytest.mark.parametrize(
    ("misbehaves", "cause"),
    [
        (redirects, "HTTP 302"),
        (sends_too_much, "larger than 1000000 bytes"),
        (sends_too_much_and_says_so, ""),
        (sends_something_else, "no JSON Web Key Set"),
        (sends_no_usable_key, "no public key"),
        (compresses, "no JSON Web Key Set"),
        (answers_slowly, ""),
        (is_forbidden, "HTTP 403"),
    ],
)
def test_the_last_keys_stay_while_the_provider_misbehaves(
    idp: Provider,
    misbehaves: Callable[[Provider], None],
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(jwks.JwksUrl, "every_s", 0.05)
    monkeypatch.setattr(jwks, "TIMEOUT_S", 0.3)

    async def story() -> None:
        async with accepting(idp.config) as known:
            await until(lambda: not code(known, token(kid="old")))
            misbehaves(idp)
            asked = len(idp.asked)
            await until(lambda: len(idp.asked) > asked + 1 and caplog.records)
            assert not code(known, token(kid="old"))
            assert code(known, token(kid="new")) == "unknown"
            assert set(idp.asked) == {"/jwks"}
            idp.status, idp.headers, idp.body = 200, {}, key_set(NEW)
            await until(lambda: not code(known, token(kid="new")))

    with caplog.at_level(logging.WARNING, "voxray.identity"):
        play(story)
    (told,) = caplog.records
    assert told.message == "token_keys_unavailable" and cause in told.cause  # type: ignore[attr-defined]
    assert "log in" not in told.cause  # type: ignore[attr-defined]


def test_the_provider_may_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks.JwksUrl, "every_s", 0.05)

    async def story() -> None:
        with provider() as idp:
            here = accepting(idp.config)
            known = await here.__aenter__()
            await until(lambda: not code(known, token()))
        await asyncio.sleep(0.5)
        assert not code(known, token(sub="bob"))
        await here.__aexit__(None, None, None)

    play(story)


def test_a_certificate_of_a_stranger_is_refused(idp: Provider) -> None:
    config = idp.config.model_copy(update={"jwks": idp.url.replace("http:", "https:")})

    async def story() -> None:
        async with accepting(config) as known:
            assert await unchanged(lambda: code(known, token(kid="old"))) == "auth_unavailable"

    play(story)


def test_a_proxy_of_the_environment_is_not_used(
    idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def story() -> None:
        async with accepting(idp.config) as known:
            await until(lambda: not code(known, token(kid="old")))

    play(story)


def test_a_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = in_file(tmp_path, key_set(OLD))
    file = config.jwks

    async def story() -> None:
        async with accepting(config) as known:
            assert not code(known, token(kid="old"))
            in_file(tmp_path, b"{")
            await until(lambda: caplog.records)
            assert not code(known, token(kid="old"))
            os.remove(file)
            await unchanged(lambda: code(known, token(kid="old")))
            in_file(tmp_path, key_set(NEW))
            await until(lambda: code(known, token(kid="old")) == "unknown")
            assert not code(known, token(kid="new"))

    with caplog.at_level(logging.WARNING, "voxray.identity"):
        play(story)
    assert [it.message for it in caplog.records] == ["token_keys_unavailable"]


def test_checking_a_token_never_waits(idp: Provider) -> None:
    """The loop turns while the provider does not answer."""

    async def story() -> None:
        idp.headers = {"content-length": str(len(idp.body) + 1)}
        async with accepting(idp.config) as known:
            await until(lambda: bool(idp.asked))
            began = time.monotonic()
            for _ in range(10):
                assert code(known, token(kid="old")) == "auth_unavailable"
                await asyncio.sleep(0)
            assert time.monotonic() - began < 0.5

    play(story)
