"""S4: a day's quotas and what may be stored, at the routes that use them."""

from json import dumps
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from tests.api.sockets.test_realtime import Client, play
from tests.fakes import served
from tests.limits.test_doors import limits

SPEECH, CHAT = "/v1/audio/speech", "/v1/chat/completions"


def refused(answer: httpx.Response) -> str:
    """The message of a refusal that must not be tried again."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "quota_exceeded"), answer.text
    assert answer.headers["x-should-retry"] == "false"
    return str(error["message"])


def test_characters_are_reserved_before_they_are_spoken() -> None:
    with served(limits(characters_per_day=20)) as address:
        url = f"http://{address}{SPEECH}"
        first = httpx.post(url, json={"input": "Good morning."})
        assert first.status_code == 200 and first.content
        assert first.headers["x-ratelimit-limit-characters"] == "20"
        assert "7 are left" in refused(httpx.post(url, json={"input": "Good morning."}))
        assert httpx.post(url, json={"input": "Hello."}).status_code == 200
        models = httpx.get(f"http://{address}/v1/models")
        assert models.headers["x-ratelimit-remaining-characters"] == "1"


def test_tokens_are_counted_as_they_are_used() -> None:
    asked = {"messages": [{"role": "user", "content": "Hello there"}]}
    with served(limits(tokens_per_day=100)) as address:
        url = f"http://{address}{CHAT}"
        first = httpx.post(url, json=asked)
        assert first.status_code == 200
        left = 100 - first.json()["usage"]["total_tokens"]
        models = httpx.get(f"http://{address}/v1/models")
        assert models.headers["x-ratelimit-remaining-tokens"] == str(left)
        assert "tokens_per_day" in refused(httpx.post(url, json={**asked, "max_tokens": 500}))
        while (answer := httpx.post(url, json={**asked, "max_tokens": 1})).status_code == 200:
            pass
        refused(answer)


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v1/audio/transcriptions"])
def test_a_recording_that_is_longer_than_what_is_left_is_cut_off(path: str, talk: bytes) -> None:
    with served(limits(audio_seconds_per_day=5)) as address:
        for _ in range(2):
            files = {"file": ("talk.wav", wav(talk))}
            answer = httpx.post(f"http://{address}{path}", files=files, timeout=60)
            assert "5 seconds of audio" in refused(answer)


def stored(folder: Path, **limits: Any) -> Config:
    return Config.model_validate(
        {
            "profile": "sim",
            "storage": {"directory": str(folder)},
            "jobs": {"max_waiting": 1},
            "tenants": {"default": {"limits": limits}},
        }
    )


def submit(address: str, body: bytes) -> httpx.Response:
    return httpx.post(f"http://{address}/v1/jobs", files={"file": ("a.wav", body)}, timeout=60)


def test_stored_bytes_are_limited_and_given_back(tmp_path: Path, talk: bytes) -> None:
    one = wav(talk)
    with served(stored(tmp_path, stored_bytes=len(one) * 2 - 1, waiting_jobs=9)) as address:
        job = submit(address, one)
        assert job.status_code == 202
        assert "stored_bytes" in refused(submit(address, one))
        assert len(list((tmp_path / "objects/default").iterdir())) == 1, "nothing stays behind"
        assert submit(address, wav(talk[: len(talk) // 2])).status_code == 202
        httpx.delete(f"http://{address}/v1/jobs/{job.json()['id']}")
        assert submit(address, one[: len(one) - 2]).status_code == 202


def test_a_body_that_does_not_say_its_size_is_stopped_in_time(tmp_path: Path, talk: bytes) -> None:
    whole = httpx.Request("POST", "http://a/", files={"file": ("a.wav", wav(talk) * 20)})
    kind = {"content-type": whole.headers["content-type"]}
    body = whole.read()
    pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    with served(stored(tmp_path, stored_bytes=100_000)) as address:
        answer = httpx.post(f"http://{address}/v1/jobs", content=pieces, headers=kind, timeout=60)
        assert "stored_bytes" in refused(answer)


def test_a_tenants_own_limit_of_waiting_jobs_counts(tmp_path: Path, talk: bytes) -> None:
    with served(stored(tmp_path, waiting_jobs=2)) as address:
        codes = [submit(address, wav(talk)).status_code for _ in range(3)]
        assert codes == [202, 202, 429]


def test_without_audio_left_no_recording_is_taken(tmp_path: Path, talk: bytes) -> None:
    with served(stored(tmp_path, audio_seconds_per_day=1)) as address:
        files = {"file": ("talk.wav", wav(talk))}
        refused(httpx.post(f"http://{address}/v1/transcribe", files=files, timeout=60))
        assert "nothing is left" in refused(submit(address, wav(talk)))


SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}


def test_realtime_sessions_are_told_what_is_left_and_replies_fail_in_band() -> None:
    with served(limits(tokens_per_day=60, requests_per_minute=9)) as address:

        async def story(client: Client) -> None:
            await client.socket.send(dumps({"type": "conversation.item.create", "item": SAID}))
            for _ in range(9):
                create = {"output_modalities": ["text"]}
                await client.socket.send(dumps({"type": "response.create", "response": create}))
                await client.until("rate_limits.updated")

        client = play(address, story)
    told = [{it["name"]: it for it in e["rate_limits"]} for e in client.of("rate_limits.updated")]
    assert told[0]["requests"]["limit"] == 9 and told[0]["requests"]["remaining"] == 8
    used = [event["response"]["usage"]["total_tokens"] for event in client.of("response.done")]
    left = [60 - sum(used[: n + 1]) for n in range(len(used))]
    assert [it["tokens"]["remaining"] for it in told] == [max(0, it) for it in left]
    assert told[0]["tokens"]["reset_seconds"] > 0
    last = client.of("response.done")[-1]["response"]
    assert last["status"] == "failed"
    assert last["status_details"]["error"]["code"] == "quota_exceeded"
