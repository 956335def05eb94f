"""S10: what models and clients say is data: it forges no captions, no log lines, no paths."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from deployments.interfaces import Word
from loadtest.speech import wav
from serve_app.live.transcript import Segment, render
from serve_app.observability.logs import Lines
from tests.fakes import FakeTranscriber, LocalReplicaSet, served
from tests.jobs.test_jobs import Client, config, running

HOSTILE = (
    "\n\n2\n00:00:09,000 --> 00:00:10,000\nforged\n\n",
    "\r\n\r\n00:09.000 --> 00:10.000\r\nforged",
    "<script>alert(1)</script>",
    "$(touch forged); `touch forged` | ../../../forged",
    "\x1b]0;forged\x07\u202e\x00",
)


def saying(text: str) -> LocalReplicaSet:
    engine = FakeTranscriber()
    engine.words = (Word(text, 0, 1600, 0.5),)
    return LocalReplicaSet(sim=engine)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_s10_words_forge_no_captions(text: str) -> None:
    segments = [Segment(id=0, start_ms=0, end_ms=1000, text=text, confidence=1.0)]
    assert len(render("srt", segments).splitlines()) == 4
    assert render("srt", segments).count("-->") == 1
    vtt = render("vtt", segments)
    assert len(vtt.splitlines()) == 5 and vtt.count("-->") == 1 and "<" not in vtt
    assert len(render("txt", segments).splitlines()) == 1


def test_s10_words_forge_no_exports_and_no_paths(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path / "a/b/c/data"), transcriber=saying("".join(HOSTILE))) as client:
        name = "../../../forged.wav"
        id_ = client.submit(wav(talk), name, headers={}).json()["id"]
        assert client.until(id_, "completed", "failed")["state"] == "completed"
        result: dict[str, Any] = client.get(f"/v1/jobs/{id_}/results").json()
        assert "forged" in result["full_text"]
        tsv = client.get(f"/v1/jobs/{id_}/export/tsv").text
        assert len(tsv.splitlines()) == 1 + len(result["aligned_segments"])
        for form in ("txt", "srt", "vtt", "docx"):
            answer = client.get(f"/v1/jobs/{id_}/export/{form}")
            assert answer.status_code == 200
            assert "\n" not in answer.headers.get("content-disposition", "")
            assert "html" not in answer.headers["content-type"]
    assert [it for it in tmp_path.rglob("*forged*")] == []


def test_s10_words_forge_no_log_lines() -> None:
    """What a field has is quoted, whatever it is."""
    record = logging.makeLogRecord({"msg": "job_retried", "code": "".join(HOSTILE)})
    for form in ("json", "text"):
        line = Lines(form, {}).format(record)
        assert len(line.splitlines()) == 1 and "\x1b" not in line and "\x00" not in line
    assert json.loads(Lines("json", {}).format(record))["code"].startswith("\n\n2")


def test_s10_an_answer_is_never_html_that_a_client_has_sent() -> None:
    with served() as address:
        answer = Client(address).get("/v1/jobs/<script>alert(1)")
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
