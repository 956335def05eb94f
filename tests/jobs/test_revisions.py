"""Corrected results: edits, conflicts, going back, exports."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.jobs import revisions
from tests.jobs.test_jobs import ENDED, Client, code_of, running, without_worker
from tests.jobs.test_search import config, find, said
from tests.waiting import wait_for

SAYS = "one two three four five"


@pytest.fixture
def client(tmp_path: Path, stored: None) -> Iterator[Client]:
    with running(config(tmp_path), transcriber=said(SAYS)) as client:
        yield client


@pytest.fixture
def url(client: Client, talk: bytes) -> str:
    """Of a completed job."""
    id_ = client.submit(wav(talk), "talk.wav").json()["id"]
    assert client.until(id_, *ENDED)["state"] == "completed"
    return f"{client.url}/v1/jobs/{id_}"


def result(url: str, **query: Any) -> httpx.Response:
    return httpx.get(f"{url}/result", params=query, timeout=30)


def correct(url: str, etag: str | None, **body: Any) -> httpx.Response:
    headers = {"If-Match": etag} if etag else {}
    return httpx.patch(f"{url}/result", json=body, headers=headers, timeout=30)


def text(segment: int, words: str) -> dict[str, Any]:
    return {"op": "set_text", "segment": segment, "text": words}


def test_a_correction_is_a_revision_and_the_original_is_kept(url: str) -> None:
    before = result(url)
    assert before.json()["revision"] == 0
    first, *_ = before.json()["aligned_segments"]
    answer = correct(
        url,
        before.headers["etag"],
        edits=[
            text(first["id"], "one 2 three four five six"),
            {"op": "rename_speaker", "speaker": first["speaker"], "name": "Anna"},
        ],
    )
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert after["revision"] == 1 and answer.headers["etag"] == result(url).headers["etag"]
    changed = after["aligned_segments"][0]
    assert changed["text"] == "one 2 three four five six" and changed["speaker"] == "Anna"
    words = {it["word"]: it for it in changed["words"]}
    old = {it["word"]: it for it in first["words"]}
    assert words["three"]["start_ms"] == old["three"]["start_ms"], "it keeps its time"
    assert words["2"]["start_ms"] == old["two"]["start_ms"] and words["2"]["confidence"] == 1
    assert "one 2 three" in after["full_text"]
    assert result(url, revision=0).json()["full_text"] == before.json()["full_text"]
    assert httpx.get(url).json()["revision"] == 1
    (listed,) = httpx.get(f"{url}/revisions").json()["data"]
    assert (listed["number"], listed["parent"], listed["edits"]) == (1, 0, 2)
    assert "Anna: one 2" in httpx.get(f"{url}/export/srt").text
    assert "Anna" not in httpx.get(f"{url}/export/srt", params={"revision": 0}).text


def test_split_and_merge(url: str) -> None:
    whole = result(url)
    id_ = whole.json()["aligned_segments"][0]["id"]
    split = correct(url, whole.headers["etag"], edits=[{"op": "split", "segment": id_, "word": 2}])
    one, two = split.json()["aligned_segments"][:2]
    assert (one["text"], two["text"]) == ("one two", "three four five"[: len(two["text"])])
    assert one["start_ms"] <= two["start_ms"] and two["id"] != id_
    merged = correct(url, split.headers["etag"], edits=[{"op": "merge", "segment": id_}])
    again = merged.json()["aligned_segments"][0]
    assert again == whole.json()["aligned_segments"][0]


def test_undo_and_redo_go_to_revisions(url: str) -> None:
    etag = result(url).headers["etag"]
    first = correct(url, etag, edits=[text(0, "changed")])
    undone = correct(url, first.headers["etag"], revert_to=0)
    assert undone.json()["revision"] == 2
    assert undone.json()["full_text"] == result(url, revision=0).json()["full_text"]
    redone = correct(url, undone.headers["etag"], revert_to=1)
    assert redone.json()["full_text"] == first.json()["full_text"]
    numbers = [it["number"] for it in httpx.get(f"{url}/revisions").json()["data"]]
    assert numbers == [3, 2, 1]


def test_a_conflict_changes_nothing(url: str) -> None:
    etag = result(url).headers["etag"]
    assert correct(url, etag, edits=[text(0, "mine")]).status_code == 200
    late = correct(url, etag, edits=[text(0, "yours")])
    assert (late.status_code, code_of(late)) == (412, "revision_conflict")
    assert "newest revision is 1" in late.json()["error"]["message"]
    assert "yours" not in result(url).text
    missing = correct(url, None, edits=[text(0, "yours")])
    assert (missing.status_code, code_of(missing)) == (428, "if_match_missing")


def test_of_many_at_once_exactly_one_wins(url: str) -> None:
    etag = result(url).headers["etag"]

    async def go() -> list[int]:
        async with httpx.AsyncClient(timeout=60) as http:
            asked = (
                http.patch(
                    f"{url}/result",
                    json={"edits": [text(0, f"from {n}")]},
                    headers={"If-Match": etag},
                )
                for n in range(8)
            )
            return [it.status_code for it in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(go())) == [200] + [412] * 7
    assert result(url).json()["revision"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"edits": []},
        {"edits": [text(0, "a")], "revert_to": 0},
        {"edits": [{"op": "explode"}]},
        {"edits": [text(99, "a")]},
        {"edits": [text(0, "a\nb")]},
        {"edits": [{"op": "split", "segment": 0, "word": 0}]},
        {"edits": [{"op": "split", "segment": 0, "word": 99}]},
        {"edits": [{"op": "merge", "segment": 99}]},
        {"edits": [{"op": "rename_speaker", "speaker": "nobody", "name": "a"}]},
        {"edits": [text(0, "a"), text(99, "b")]},
        {"edits": [text(0, "a" * 20_001)]},
        {"edits": [text(0, "a")] * 501},
        {"revert_to": -1},
        {"revert_to": 7},
    ],
)
def test_what_does_not_fit_changes_nothing(url: str, body: dict[str, Any]) -> None:
    before = result(url)
    answer = correct(url, before.headers["etag"], **body)
    assert answer.status_code in (400, 404, 422), answer.text
    assert result(url).json() == before.json()


def test_corrected_words_are_found(client: Client, url: str) -> None:
    wait_for(lambda: find(client, "three"))
    correct(url, result(url).headers["etag"], edits=[text(0, "hapaxlegomenon")])
    (job,) = find(client, "hapaxlegomenon")
    assert job["found"][0]["text"] == "hapaxlegomenon"


def test_the_same_audio_again_gets_what_was_recognised(
    client: Client, url: str, talk: bytes
) -> None:
    correct(url, result(url).headers["etag"], edits=[text(0, "corrected")])
    id_ = client.submit(wav(talk), "again.wav").json()["id"]
    assert client.until(id_, *ENDED)["cached"]
    again = httpx.get(f"{client.url}/v1/jobs/{id_}/result").json()
    assert again["revision"] == 0 and "corrected" not in again["full_text"]


def test_the_oldest_revisions_are_given_up_but_not_the_original(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "KEPT", 2)
    etag = result(url).headers["etag"]
    for n in range(4):
        etag = correct(url, etag, edits=[text(0, f"number {n}")]).headers["etag"]
    assert [it["number"] for it in httpx.get(f"{url}/revisions").json()["data"]] == [4, 3]
    gone = result(url, revision=1)
    assert (gone.status_code, code_of(gone)) == (404, "revision_not_found")
    assert result(url, revision=0).status_code == 200


def test_what_is_not_completed_cannot_be_corrected(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        answer = correct(f"{client.url}/v1/jobs/{id_}", "*", edits=[text(0, "a")])
        assert (answer.status_code, code_of(answer)) == (409, "job_not_completed")


def test_with_its_job_everything_is_gone(client: Client, url: str, tmp_path: Path) -> None:
    correct(url, result(url).headers["etag"], edits=[text(0, "hapaxlegomenon")])
    assert list(tmp_path.rglob("revisions"))
    assert httpx.delete(url).status_code == 204
    assert not list(tmp_path.rglob("revisions"))
    assert correct(url, "*", edits=[text(0, "a")]).status_code == 404
