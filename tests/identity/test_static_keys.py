"""Keys that an operator has made: from the environment, and from a file that changes."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serve_app.config.auth import AuthConfig
from serve_app.errors import ClientError
from serve_app.identity.authenticator import Authenticator
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import ALL, Scope
from serve_app.jobs.database import Database
from tests.waiting import until

KEY, OTHER = "a-key-of-our-own-0123", "another-key-4567-abcd"


def secret_file(path: Path, text: str) -> Path:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    return new.replace(path)


def authenticator(auth: AuthConfig) -> Authenticator:
    return Authenticator(auth, Database("sqlite+aiosqlite:///unused.db"))


def reason(known: Authenticator, credential: str) -> RefusalReason:
    with pytest.raises(LoginRefused) as refused:
        known.authenticated(credential)
    assert (refused.value.code, refused.value.status) == ("invalid_api_key", 401)
    assert len(credential) < 8 or credential not in refused.value.message
    return refused.value.reason


def test_keys_of_the_environment_may_do_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", f"{KEY},{OTHER}")
    assert AuthConfig().required
    known = authenticator(AuthConfig())
    caller = known.authenticated(KEY)
    assert (caller.tenant, caller.scopes) == ("default", ALL)
    assert KEY not in caller.key
    assert caller.key != known.authenticated(OTHER).key
    assert known.still_valid(caller.key)
    assert not known.still_valid("static:nobody")


@pytest.mark.parametrize(
    ("credential", "why"),
    [
        ("", RefusalReason.MISSING),
        ("x", RefusalReason.UNKNOWN),
        (KEY[:-1], RefusalReason.UNKNOWN),
        (KEY.upper(), RefusalReason.UNKNOWN),
        (f"{KEY} ", RefusalReason.UNKNOWN),
        (f"{KEY},{OTHER}", RefusalReason.UNKNOWN),
        ("ключ" * 5, RefusalReason.MALFORMED),
        ("\udce9" * 20, RefusalReason.MALFORMED),
        ("x" * 100_000, RefusalReason.MALFORMED),
    ],
)
def test_everything_else_is_refused(
    credential: str, why: RefusalReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", f"{KEY},{OTHER}")
    assert reason(authenticator(AuthConfig()), credential) == why


@pytest.mark.parametrize(
    "weak",
    ["short", "a" * 40, "abababababababab", "with a space in it", "x" * 513, "ek_0123456789ab"],
)
def test_a_weak_key_is_refused_at_the_start(weak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", weak)
    with pytest.raises(ValueError, match=r"VOXRAY_API_KEY: .*openssl rand") as refused:
        authenticator(AuthConfig())
    assert weak not in str(refused.value)


def test_without_any_key_nobody_could_come_in() -> None:
    assert not AuthConfig().required
    with pytest.raises(ValueError, match=r"VOXRAY_API_KEY.*auth\.key_file"):
        authenticator(AuthConfig(mode="on"))


def test_off_is_off_even_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", KEY)
    assert not AuthConfig(mode="off").required


def test_what_is_decided_on_one_machine_holds_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = AuthConfig().decided
    monkeypatch.setenv("VOXRAY_API_KEY", KEY)
    closed = AuthConfig().decided
    assert not open_.required
    monkeypatch.delenv("VOXRAY_API_KEY")
    assert closed.required


FILE = f"""
- key: {KEY}
  tenant: acme
  scopes: [transcribe, speak]
  name: gateway
- sha256: 9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab
"""
"""The second is `abcdefgh`, which we would refuse if we saw it."""


def test_a_file_says_whose_keys_they_are(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "keys.yaml", FILE)
    auth = AuthConfig(key_file=str(path))
    assert auth.required
    known = authenticator(auth)
    caller = known.authenticated(KEY)
    assert (caller.tenant, caller.key) == ("acme", "static:gateway")
    assert caller.scopes == {Scope.TRANSCRIBE, Scope.SPEAK}
    assert known.authenticated("abcdefgh").tenant == "default"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"- key: {KEY}\n  tenant: ../other", "name for a tenant"),
        (f"- key: {KEY}\n  tenant: ''", "name for a tenant"),
        (f"- key: {KEY}\n  scopes: [everything]", "scopes"),
        (f"- key: {KEY}\n- key: {KEY}", "twice"),
        (f"- key: {KEY}\n  name: a\n- key: {OTHER}\n  name: a", "twice"),
        (f"- key: {KEY}\n  role: admin", "role"),
        ("- tenant: acme", "`key` or `sha256`"),
        ("- key: short", "openssl rand"),
        (f"key: {KEY}", "list"),
        (f"[{KEY}", "cannot be read"),
        ("- &a [*a]", "0"),
    ],
)
def test_a_wrong_file_is_refused_without_a_word_of_it(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = secret_file(tmp_path / "keys.yaml", text)
    with pytest.raises(ValueError, match=complaint) as refused:
        authenticator(AuthConfig(key_file=str(path)))
    assert str(path) in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "keys.yaml", FILE)
    path.chmod(0o640)
    with pytest.raises(ValueError, match=f"chmod 600 {path}"):
        authenticator(AuthConfig(key_file=str(path)))


def playing(known: Authenticator, story: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        running = asyncio.create_task(known.run())
        await story()
        running.cancel()

    asyncio.run(go())


def test_a_key_that_leaves_the_file_is_ended_and_a_broken_file_changes_nothing(
    tmp_path: Path,
) -> None:
    path = secret_file(tmp_path / "keys.yaml", FILE)
    known = authenticator(AuthConfig(key_file=str(path)))
    ended: list[str] = []
    known.follow_revoked(ended.extend)

    async def story() -> None:
        secret_file(path, "- key: [")
        await asyncio.sleep(1.5)
        assert known.authenticated(KEY).tenant == "acme"
        secret_file(path, f"- key: {OTHER}\n  tenant: acme")
        await until(lambda: bool(ended))
        assert "static:gateway" in ended
        assert not known.still_valid("static:gateway")
        assert known.authenticated(OTHER).tenant == "acme"
        os.remove(path)
        await asyncio.sleep(1.5)
        known.authenticated(OTHER)

    playing(known, story)
    with pytest.raises(ClientError):
        known.authenticated(KEY)


def test_a_key_whose_scopes_change_is_ended_too(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "keys.yaml", FILE)
    known = authenticator(AuthConfig(key_file=str(path)))
    ended: list[str] = []
    known.follow_revoked(ended.extend)

    async def story() -> None:
        secret_file(path, FILE.replace("[transcribe, speak]", "[transcribe]"))
        await until(lambda: ended == ["static:gateway"])

    playing(known, story)
    assert known.authenticated(KEY).scopes == {Scope.TRANSCRIBE}
