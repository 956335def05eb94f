from typing import Any

import pytest

from serve_app.cli import NoServer
from serve_app.cli.rest import Rest
from serve_app.cli.watch import POLL_S, RETRY_S, SLOWEST_RETRY_S, until_ended

JOB = {"step": "transcribe", "progress": 50, "error": None, "file": {"name": "a.wav"}}


class Away(Rest):
    """Answers once, is away `failures` times, and then has the job's end."""

    def __init__(self, failures: int) -> None:
        self._answers: list[Any] = ["running", *[NoServer("away")] * failures, "completed"]

    def ask(self, *_: Any, **__: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer({**JOB, "state": answer})


class Answer:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job

    def json(self) -> dict[str, Any]:
        return self._job


def test_a_server_that_restarts_is_polled_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("serve_app.cli.watch.time.sleep", waits.append)
    (job,) = until_ended(Away(6), ["job_1"])
    assert job["state"] == "completed" and waits.pop(0) == POLL_S and len(waits) == 6
    for attempt, wait in enumerate(waits):
        whole = min(RETRY_S * 2**attempt, SLOWEST_RETRY_S)
        assert whole / 2 <= wait <= whole
