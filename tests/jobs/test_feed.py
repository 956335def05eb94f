"""`GET /v1/jobs/events`: one stream for all jobs of a tenant."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.identity.principal import Scope
from tests.fakes import serving
from tests.identity.keys import bearer, keyed, with_keys
from tests.jobs.test_jobs import running
from tests.jobs.test_search import config

Event = dict[str, Any]


@contextmanager
def watching(url: str, **headers: str) -> Iterator[Iterator[Event]]:
    with httpx.stream("GET", f"{url}/v1/jobs/events", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        yield (json.loads(line[6:]) for line in lines)


def until(events: Iterator[Event], id_: str, *states: str) -> list[Event]:
    seen = []
    for event in events:
        if event["type"] == "job" and event["job"]["id"] == id_:
            seen.append(event["job"])
            if event["job"]["state"] in states:
                return seen
    raise AssertionError("the stream ended")


def test_every_job_is_told_from_its_begin_to_its_deletion(
    tmp_path: Path, stored: None, talk: bytes
) -> None:
    with running(config(tmp_path)) as client:
        first = client.submit(wav(talk), "first.wav").json()["id"]
        with watching(client.url) as events:
            snapshot = next(events)
            assert snapshot["type"] == "snapshot"
            assert [it["id"] for it in snapshot["jobs"]] == [first]
            second = client.submit(wav(talk), "second.wav").json()["id"]
            (*_, last) = until(events, second, "completed")
            assert last["progress"] == 100 and last["file"]["name"] == "second.wav"
            httpx.delete(f"{client.url}/v1/jobs/{second}")
            gone = next(event for event in events if event["type"] == "deleted")
            assert gone["id"] == second


def test_tenants_see_their_own(tmp_path: Path, talk: bytes) -> None:
    settings = with_keys(config(tmp_path), "acme", "bolt")
    with running(settings) as client:
        sent = {"file": ("a.wav", wav(talk))}
        with watching(client.url, **bearer("bolt")) as others:
            assert next(others)["jobs"] == []
            url = f"{client.url}/v1/jobs"
            id_ = httpx.post(url, files=sent, headers=bearer("acme")).json()["id"]
            with watching(client.url, **bearer("acme")) as events:
                assert [it["id"] for it in next(events)["jobs"]] == [id_]
            own = httpx.post(url, files=sent, headers=bearer("bolt")).json()["id"]
            event = next(others)
            assert event["job"]["id"] == own


def test_it_ends_with_its_key(tmp_path: Path) -> None:
    with running(with_keys(config(tmp_path), "acme")) as client:
        with watching(client.url, **bearer("acme")) as events:
            assert next(events)["type"] == "snapshot"
            keyed(tmp_path, bolt={Scope.JOBS})
            assert next(events)["error"]["code"] == "invalid_api_key"
            assert next(events, None) is None


def test_too_many_watchers_are_refused(tmp_path: Path) -> None:
    few = config(tmp_path, jobs={"max_watchers": 1})
    with running(few) as client, watching(client.url) as events:
        next(events)
        refused = httpx.get(f"{client.url}/v1/jobs/events")
        assert refused.status_code == 429 and refused.headers["retry-after"]


def test_it_ends_when_the_server_stops(tmp_path: Path) -> None:
    with serving(Config.model_validate(config(tmp_path).model_dump())) as here:
        with watching(f"http://{here.address}") as events:
            next(events)
            here.begin_drain()
            assert next(events, None) is None


@pytest.mark.parametrize("count", [30])
def test_many_watchers_cost_one_look(tmp_path: Path, count: int, talk: bytes) -> None:
    with running(config(tmp_path, jobs={"max_watchers": 100, "poll_s": 0.05})) as client:
        streams = [watching(client.url) for _ in range(count)]
        opened = [stream.__enter__() for stream in streams]
        for events in opened:
            next(events)
        id_ = client.submit(wav(talk), "a.wav").json()["id"]
        for events in opened:
            until(events, id_, "completed")
        for stream in streams:
            stream.__exit__(None, None, None)
