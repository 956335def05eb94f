"""What the audit log says of requests: who, from where, what; never words."""

import json
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.observability.audit_events import AUDIT_EVENTS
from tests.fakes import served
from tests.identity.keys import bearer, key_of, with_keys
from tests.waiting import wait_for

CANARY = "canary-that-was-said"


class Audited:
    def __init__(self, address: str, file: Path) -> None:
        self.file = file
        self._url = f"http://{address}"

    def ask(
        self, method: str, path: str, shown: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        headers = {"x-request-id": uuid.uuid4().hex, **(shown or bearer("acme"))}
        return httpx.request(method, f"{self._url}{path}", headers=headers, timeout=30, **more)

    def entries(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines]

    def after(self, event: str, act: Callable[[], httpx.Response]) -> dict[str, Any]:
        """The entry of an event that `act` causes."""
        before = len(self.entries())
        answer = act()

        def found() -> list[dict[str, Any]]:
            return [it for it in self.entries()[before:] if it["event"] == event]

        (entry,) = wait_for(found)
        assert entry["request"] == answer.headers["x-request-id"]
        return entry


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    config = Config.model_validate({"profile": "sim", "storage": {"directory": str(folder)}})
    with served(with_keys(config, "acme", "other", nothing=())) as address:
        yield Audited(address, folder / "audit.log")


def who(entry: dict[str, Any]) -> tuple[str, str]:
    assert entry["key"].startswith("static:")
    return entry["tenant"], entry["address"]


def test_settings_that_were_changed(server: Audited) -> None:
    changes = {"limits": {"max_sessions": 7}, "vad": {"min_silence_ms": 400}}
    entry = server.after(
        "settings_changed", lambda: server.ask("POST", "/config/update", json=changes)
    )
    assert who(entry) == ("acme", "127.0.0.1") and entry["settings"] == changes


def test_settings_that_were_not_changed_are_none(server: Audited) -> None:
    before = len(server.entries())
    refused = server.ask("POST", "/config/update", json={"limits": {"max_sessions": -1}})
    assert refused.status_code == 400
    server.after("settings_changed", lambda: server.ask("POST", "/config/update", json={}))
    assert len(server.entries()) == before + 1


@pytest.mark.parametrize("path", ["/v1/jobs", "/api/jobs", "/api/transcription"])
def test_a_recording_that_was_deleted(server: Audited, path: str) -> None:
    file = {"file": (f"{CANARY}.wav", wav(bytes(32_000)))}
    job = server.ask("POST", "/v1/jobs", files=file).json()["id"]
    entry = server.after("job_deleted", lambda: server.ask("DELETE", f"{path}/{job}"))
    assert (who(entry), entry["id"]) == (("acme", "127.0.0.1"), job)


def test_a_tenant_that_was_deleted_is_named_and_so_is_who_asked_for_it(server: Audited) -> None:
    entry = server.after("tenant_deleted", lambda: server.ask("DELETE", "/v1/tenants/other/data"))
    assert who(entry) == ("other", "127.0.0.1")


def test_a_caller_who_was_not_let_in(server: Audited) -> None:
    wrong = {"Authorization": f"Bearer {CANARY}-0123456789"}
    entry = server.after("login_refused", lambda: server.ask("GET", "/v1/jobs", wrong))
    assert (entry["reason"], entry["address"]) == ("unknown", "127.0.0.1")
    entry = server.after("login_refused", lambda: server.ask("GET", "/v1/jobs", bearer("nothing")))
    assert entry["reason"] == "scope"


def test_no_words_no_keys_and_nobody_else_may_read_it(server: Audited) -> None:
    text = server.file.read_text()
    assert CANARY not in text and key_of("acme") not in text
    assert {it["event"] for it in server.entries()} <= set(AUDIT_EVENTS)
    assert stat.S_IMODE(server.file.stat().st_mode) == 0o600


def test_the_server_goes_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = Config.model_validate({"profile": "sim", "storage": {"directory": str(tmp_path)}})
    config = with_keys(config, "acme")
    nowhere = config.auth.model_copy(update={"audit_file": str(tmp_path / "file/audit.log")})
    with served(config.model_copy(update={"auth": nowhere})) as address:
        server = Audited(address, tmp_path / "audit.log")
        for _ in range(20):
            assert server.ask("POST", "/config/update", json={}).status_code == 200
    assert (tmp_path / "file").read_bytes() == b""
