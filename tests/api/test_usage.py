"""`GET /v1/usage`: rows by group, pages, CSV, who sees what."""

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from serve_app.api.usage import _whose
from serve_app.errors import ClientError
from serve_app.identity.principal import ALL, Principal, Scope
from serve_app.jobs.database import Database
from serve_app.jobs.job import JobOptions
from serve_app.jobs.queue import Queue, Submitted, new_id
from serve_app.usage.meter import Counted, Entry
from serve_app.usage.table import overwrite, today
from tests.fakes import served
from tests.usage.served import configured

AUDIO, TOKENS = Counted.AUDIO, Counted.TOKENS
TODAY = datetime.now(UTC).date()
YESTERDAY = (TODAY - timedelta(days=1)).isoformat()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("usage")
    config = configured(folder)
    asyncio.run(_filled(Database(config.storage.database_url)))
    with served(config) as address:
        yield address


async def _filled(database: Database) -> None:
    day = today()
    sums = {
        Entry(day - 1, "acme", "k1", AUDIO): 1.5,
        Entry(day - 1, "acme", "k2", AUDIO): 2.0,
        Entry(day - 1, "=evil", "k3", TOKENS): 7.0,
        Entry(day - 40, "acme", "k1", AUDIO): 100.0,
    }
    async with database.write() as connection:
        await overwrite(connection, "a", sums)
        await overwrite(connection, "b", {Entry(day - 1, "acme", "k1", AUDIO): 1.0001})
    file = Submitted(new_id(), "acme", JobOptions(), "a.wav", "audio/wav", 1000, "d", None, None)
    await Queue(database, 10.0).submit(file._replace(key="k1"), 10)
    await database.close()


def get(server: str, **asked: Any) -> httpx.Response:
    return httpx.get(f"http://{server}/v1/usage", params=asked, timeout=30)


def rows(server: str, **asked: Any) -> list[dict[str, Any]]:
    answer = get(server, **asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_rows_are_sums_of_their_group(server: str) -> None:
    by_day = rows(server, group_by="day,tenant", to=YESTERDAY, tenant="acme")
    assert [(it["day"], it["tenant"], it["audio_seconds"]) for it in by_day] == [
        (YESTERDAY, "acme", 4.5)
    ]
    by_key = rows(server, group_by="key", tenant="acme")
    assert [(it["key"], it["audio_seconds"]) for it in by_key] == [("k1", 2.5), ("k2", 2.0)]
    (whole,) = rows(server, group_by="")
    assert (whole["audio_seconds"], whole["tokens"]) == (4.5, 7)


def test_what_is_stored_is_in_the_rows_of_today(server: str) -> None:
    by_day = rows(server, group_by="day,key", tenant="acme")
    stored = {(it["day"], it["key"]): it["stored_bytes"] for it in by_day}
    assert stored[TODAY.isoformat(), "k1"] == 1000
    assert sum(stored.values()) == 1000
    assert sum(it["stored_bytes"] for it in rows(server, to=YESTERDAY)) == 0


def test_the_days_asked_for_are_those_counted(server: str) -> None:
    first = (TODAY - timedelta(days=60)).isoformat()
    (whole,) = rows(server, group_by="", **{"from": first}, tenant="acme")
    assert whole["audio_seconds"] == 104.5
    (none,) = rows(server, group_by="", **{"from": first}, to=first)
    assert none["audio_seconds"] == 0


def test_pages_follow_each_other(server: str) -> None:
    whole = rows(server, group_by="tenant,key", to=YESTERDAY)
    assert len(whole) == 3
    pages = [
        get(server, group_by="tenant,key", to=YESTERDAY, limit=2, offset=at).json() for at in (0, 2)
    ]
    assert [page["has_more"] for page in pages] == [True, False]
    assert pages[0]["data"] + pages[1]["data"] == whole


@pytest.mark.parametrize("asked", [{"format": "csv"}, {}])
def test_csv_has_the_same_rows_and_no_formulas(server: str, asked: dict[str, str]) -> None:
    headers = {} if asked else {"Accept": "text/csv"}
    params = {"group_by": "tenant", "to": YESTERDAY, **asked}
    answer = httpx.get(f"http://{server}/v1/usage", params=params, headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(it["tenant"], it["audio_seconds"], it["tokens"]) for it in found] == [
        ("'=evil", "0.0", "7"),
        ("acme", "4.5", "0"),
    ]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"group_by": "day,colour"}, "group_by"),
        ({"from": "2026-13-01"}, "from"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "from"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "from"),
        ({"limit": "10001"}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"format": "xml"}, "format"),
    ],
)
def test_wrong_questions_are_refused(server: str, asked: dict[str, str], param: str) -> None:
    answer = get(server, **asked)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_key_sees_its_tenant_and_an_admin_sees_all() -> None:
    mine = Principal("acme", "k1", frozenset({Scope.JOBS}))
    assert _whose(mine, None) == _whose(mine, "acme") == "acme"
    with pytest.raises(ClientError) as refused:
        _whose(mine, "other")
    assert refused.value.code == "missing_scope"
    admin = Principal("acme", "k1", ALL)
    assert _whose(admin, None) is None and _whose(admin, "other") == "other"


def test_no_database_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_DATABASE_URL", "postgresql+asyncpg://x@127.0.0.1:9/x")
    with served(configured(tmp_path)) as address:
        answer = get(address)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "storage_unavailable"
