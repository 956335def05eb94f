"""Recordings found by the words of their names and transcripts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.jobs import search_words, sweeping
from serve_app.jobs.database import Database
from serve_app.jobs.search_index import Found
from serve_app.jobs.tables import jobs, passages
from tests.fakes import FakeTranscriber, LocalReplicaSet
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import ENDED, Client, running
from tests.waiting import wait_for

SAYS = "Grüße from the café, zanzibar-hook 2024 <b>bold</b>"


def config(folder: Path, **sections: Any) -> Config:
    storage = {"directory": str(folder)}
    args = {"profile": "sim", "storage": storage, "jobs": {"poll_s": 0.05}, **sections}
    return Config.model_validate(args)


def said(words: str = SAYS) -> LocalReplicaSet:
    return LocalReplicaSet(sim=FakeTranscriber(words))


@pytest.fixture
def client(tmp_path: Path, stored: None, talk: bytes) -> Iterator[Client]:
    """With one recording."""
    with running(config(tmp_path), transcriber=said()) as client:
        id_ = client.submit(wav(talk), "Board_meeting-Lindqvist.wav").json()["id"]
        assert client.until(id_, *ENDED)["state"] == "completed"
        wait_for(lambda: find(client, "zanzibar"))
        yield client


def answer(client: Client, text: str, **query: Any) -> dict[str, Any]:
    got = httpx.get(f"{client.url}/v1/jobs", params={"q": text, **query}, timeout=30)
    assert got.status_code == 200, got.text
    body: dict[str, Any] = got.json()
    return body


def find(client: Client, text: str) -> list[Any]:
    found: list[Any] = answer(client, text)["data"]
    return found


def test_words_are_found_and_marked(client: Client) -> None:
    for text in ("cafe", "CAFÉ", "zanzibar hook", "grü", '"from the"', "2024", "the zanz", "bold"):
        found = find(client, text)
        if text == "cafe" and not found:
            continue  # PostgreSQL's `simple` keeps accents
        (job,) = found
        assert job["found"], text
        passage = job["found"][0]
        for start, end in passage["marks"]:
            marked = passage["text"][start:end].casefold()
            assert any(word[:3] in marked for word in text.casefold().strip('"').split()) or (
                marked == "café"
            )
    assert answer(client, "zanzibar")["searched"] == "all"
    assert len(find(client, "zanzibar")[0]["found"]) <= 3


def test_names_are_found_as_well(client: Client) -> None:
    for text in ("lindqvist", "board meet", "MEETING"):
        (job,) = find(client, text)
        assert job["found"] == []


@pytest.mark.parametrize(
    "text", ["nothing", "zanzibar nothing", '"the from"', "zanzib lindqvist", "anzibar", "***", '"']
)
def test_what_is_not_there_is_not_found(client: Client, text: str) -> None:
    assert find(client, text) == []


HOSTILE = [
    'a" OR "b',
    "NEAR(a b)",
    "text:a",
    "a*b^c",
    "' ; DROP TABLE jobs",
    "& | ! <-> :*",
    "a:b",
    "%_\\",
]


def test_any_text_is_a_valid_search(client: Client) -> None:
    for text in (*HOSTILE, "\\", "_", "ß" * 200, "١٢٣", "日本語", "a' b", '"a b', "\x01\x02"):
        answer(client, text)
    got = httpx.get(f"{client.url}/v1/jobs", params={"q": "x" * 201})
    assert got.status_code in (400, 422)


def test_pages_follow_each_other(client: Client, talk: bytes) -> None:
    ids = [client.submit(wav(talk), f"more {n}.wav").json()["id"] for n in range(2)]
    for id_ in ids:
        client.until(id_, *ENDED)
    wait_for(lambda: len(find(client, "zanzibar")) == 3)
    first = answer(client, "zanzibar", limit=2)
    assert first["has_more"] and [it["id"] for it in first["data"]] == ids[::-1]
    rest = answer(client, "zanzibar", limit=2, after=ids[0])
    assert not rest["has_more"] and len(rest["data"]) == 1


def test_a_deleted_recording_is_not_found(client: Client) -> None:
    (job,) = find(client, "zanzibar")
    assert httpx.delete(f"{client.url}/v1/jobs/{job['id']}").status_code == 204
    assert find(client, "zanzibar") == find(client, "lindqvist") == []


def test_another_tenant_finds_nothing(tmp_path: Path, stored: None, talk: bytes) -> None:
    settings = with_keys(config(tmp_path), "acme", "bolt")
    with running(settings, transcriber=said()) as client:
        sent = {"file": ("a.wav", wav(talk))}
        url = f"{client.url}/v1/jobs"
        assert httpx.post(url, files=sent, headers=bearer("acme")).status_code == 202

        def of(tenant: str) -> int:
            got = httpx.get(url, params={"q": "zanzibar"}, headers=bearer(tenant))
            return len(got.json()["data"])

        wait_for(lambda: of("acme") == 1)
        assert of("bolt") == 0


def test_encrypted_recordings_are_found_by_name_only(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    sealed = config(tmp_path, storage={"directory": str(tmp_path), "encrypt": True})
    with running(sealed, transcriber=said()) as client:
        id_ = client.submit(wav(talk), "lindqvist.wav").json()["id"]
        client.until(id_, *ENDED)
        got = answer(client, "lindqvist")
        assert [it["id"] for it in got["data"]] == [id_] and got["searched"] == "names"
        assert find(client, "zanzibar") == []
    on_disk = b"".join(it.read_bytes() for it in tmp_path.glob("voxray.db*"))
    assert b"zanzibar" not in on_disk and b"lindqvist" not in on_disk


def test_what_was_there_before_is_indexed_by_a_sweep(
    tmp_path: Path, stored: None, database_url: str, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_S", 0.2)
    with running(config(tmp_path), transcriber=said()) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        client.until(id_, *ENDED)
        wait_for(lambda: find(client, "zanzibar"))
    forget_index(database_url)
    with running(config(tmp_path), transcriber=said()) as client:
        wait_for(lambda: find(client, "zanzibar"))


def forget_index(url: str) -> None:
    async def go() -> None:
        database = Database(url)
        async with database.write() as connection:
            await connection.execute(passages.delete())
            await connection.execute(jobs.update().values(indexed=False))
        await database.close()

    asyncio.run(go())


def test_marks_are_places_in_the_text() -> None:
    assert Found.of(5, "a \x01bc\x02 d \x01e\x02") == Found(5, "a bc d e", [(2, 4), (7, 8)])


@given(st.text(max_size=300))
@settings(deadline=None)
def test_words_are_only_words(text: str) -> None:
    asked = search_words.terms(text)
    assert len(asked) <= search_words.MOST_TERMS
    for term in asked:
        assert all(word.replace("_", "a").isalnum() for word in term.words)
    assert '""' not in search_words.for_sqlite(asked)
