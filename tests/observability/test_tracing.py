"""Traces, as a collector gets them: a tree for a turn, a job and a request."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.chat.sim import SimChat
from deployments.interfaces import ChatDelta, ChatRequest
from loadtest.speech import wav
from serve_app.extras import OTEL, MissingExtra
from serve_app.observability import tracing
from serve_app.observability.otlp import OtlpRecorder, is_configured
from serve_app.observability.trace import Trace, new_trace, parsed
from tests.api.sockets.test_conversation_socket import audio, exchange
from tests.collector import Collector, Seen, collecting
from tests.fakes import models, served
from tests.jobs.test_jobs import config, running
from tests.waiting import wait_for

CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        recorder = OtlpRecorder({"voxray.deployment": "Ingress"})
        tracing.use(recorder)
        yield collector
        tracing.use(None)
        recorder.stop()


@given(st.from_regex(r"[0-9a-f]{32}", fullmatch=True), st.booleans())
def test_a_traceparent_is_what_it_was_parsed_from(trace_id: str, sampled: bool) -> None:
    trace = Trace(trace_id, "00f067aa0ba902b7", sampled)
    assert parsed(str(trace)) == (trace if int(trace_id, 16) else None)


@pytest.mark.parametrize("text", [None, "", "00-x", CLIENT + "-x", "00-" + "0" * 32 + CLIENT[35:]])
def test_an_invalid_traceparent_is_ignored(text: str | None) -> None:
    assert parsed(text) is None


def test_children_have_ids_of_their_own_in_the_same_trace() -> None:
    first = new_trace()
    child = first.child()
    assert child.trace_id == first.trace_id and child.span_id != first.span_id


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_only_the_standard_variables_turn_traces_on(
    environment: dict[str, str], is_on: bool
) -> None:
    assert is_configured(environment) is is_on


def test_nothing_of_opentelemetry_is_imported_before_it_is_used() -> None:
    check = (
        "import sys, serve_app.api, serve_app.jobs.worker, serve_app.observability.otlp as otlp\n"
        "sys.exit(bool({'opentelemetry.sdk', 'opentelemetry.exporter'} & set(sys.modules)))"
    )  # FastAPI imports the API, which does nothing by itself
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_without_the_extra_traces_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, OTEL.module, None)
    with pytest.raises(MissingExtra, match=r"voxray\[otel\]"):
        OtlpRecorder({})


def inside(child: Seen, parent: Seen) -> bool:
    return parent.began <= child.began <= child.ended <= parent.ended


def test_a_spoken_turn_is_a_tree_of_its_stages(collector: Collector, speech: bytes) -> None:
    with served() as address:
        answers = exchange(address, audio(speech))
    wait_for(lambda: collector.named("turn") and collector.named("session"))
    (turn,) = collector.named("turn")
    assert turn.parent == "" and turn.attributes["voxray.status"] == "completed"
    wait_for(lambda: len(collector.children(turn)) >= 5)
    stages = collector.children(turn)
    assert {it.name for it in stages} == {"vad", "transcribe", "think", "speak", "first_audio"}
    assert all(inside(it, turn) and it.trace == turn.trace for it in stages), stages
    (session,) = collector.named("session")
    assert turn.attributes["voxray.session"] == session.attributes["voxray.session"]
    assert answers[0]["session_id"] == session.attributes["voxray.session"]


class Asking(SimChat):
    """Keeps the traces of what it is asked."""

    traces: list[str] = []  # noqa: RUF012

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        self.traces.append(request.trace)
        async for piece in super().reply(request):
            yield piece


def ask(address: str) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(
        f"http://{address}/v1/chat/completions", json=asked, headers={"traceparent": CLIENT}
    )
    assert answer.status_code == 200


def test_a_request_is_a_span_of_its_clients_trace_and_the_model_gets_it(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asking, "traces", [])
    with served(given=models(chat_engine=Asking(5, 1, 8))) as address:
        ask(address)
    (span,) = wait_for(lambda: collector.named("POST /v1/chat/completions"))
    assert (span.trace, span.parent) == (CLIENT[3:35], CLIENT[36:52])
    assert span.attributes["http.response.status_code"] == 200
    assert Asking.traces == [f"00-{span.trace}-{span.id}-01"]


def test_a_clients_trace_is_passed_on_where_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Asking, "traces", [])
    with served(given=models(chat_engine=Asking(5, 1, 8))) as address:
        ask(address)
    assert Asking.traces == [CLIENT]


def test_a_job_is_a_tree_of_its_stages_in_a_trace_of_its_id(
    collector: Collector, tmp_path: Path, talk: bytes
) -> None:
    with running(config(tmp_path)) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        client.until(id_, "completed")
        (job,) = wait_for(lambda: collector.named("job"))
    assert (job.trace, job.parent) == (id_.removeprefix("job_"), "")
    assert job.attributes["voxray.job"] == id_
    stages = collector.children(job)
    assert {it.name for it in stages} == {"prepare", "transcribe", "diarize", "align"}
    assert all(inside(it, job) for it in stages)
    (transcribe,) = collector.named("transcribe")
    assert {it.name for it in collector.children(transcribe)} == {"windows"}


def test_a_failure_is_the_error_of_its_span(collector: Collector) -> None:
    with pytest.raises(ValueError, match="canary"):
        with tracing.span("work"):
            raise ValueError("canary")
    (span,) = wait_for(lambda: collector.named("work"))
    assert span.error == "ValueError"


def test_what_a_client_does_not_sample_is_not_sent(collector: Collector) -> None:
    with tracing.current_trace(parsed(CLIENT[:-2] + "00")), tracing.span("quiet"):
        pass
    with tracing.span("heard"):
        pass
    wait_for(lambda: collector.named("heard"))
    assert not collector.named("quiet")
