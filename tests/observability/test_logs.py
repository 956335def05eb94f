"""What is logged: listed events with ids, and nothing that a client said."""

import ast
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from websockets.sync.client import connect as websocket

from loadtest.speech import wav
from serve_app.observability.ids import belonging
from serve_app.observability.log_events import IDS, LOG_EVENTS
from serve_app.observability.log_pipe import PipeWriter, relayed
from serve_app.observability.logs import LOGGERS, Lines, start_logging
from tests.api.sockets.test_live_socket import PATH, chunks, converse
from tests.fakes import served
from tests.test_architecture import SOURCES, name, tree
from tests.waiting import wait_for

ASYNC_LEVELS = {"exception": "error"}


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [it for it in map(json.loads, self.lines) if it["event"] == event]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What is logged, from `debug` on."""
    loggers = [logging.getLogger(it) for it in LOGGERS]
    before = [(it, it.handlers, it.propagate, it.level) for it in loggers]
    handler = Kept()
    start_logging("debug", "json", {"deployment": "Ingress", "replica": "r1"}, [handler])
    yield handler
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if ast.unparse(node.func.value) == "log":
                    yield f"{name(path)}:{node.lineno}", node


CALLS = [it for it in log_calls() if it[1].func.attr != "setLevel"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[where for where, _ in CALLS])
def test_a_log_call_names_a_listed_event_and_its_fields(where: str, call: ast.Call) -> None:
    (event,) = call.args
    assert isinstance(event, ast.Constant) and isinstance(event.value, str)
    assert isinstance(call.func, ast.Attribute)
    listed = LOG_EVENTS[event.value]
    assert ASYNC_LEVELS.get(call.func.attr, call.func.attr) == listed.level
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            keys = {it.value for it in keyword.value.keys if isinstance(it, ast.Constant)}
            assert keys <= {*IDS, *listed.fields}


def test_every_listed_event_is_logged_somewhere() -> None:
    named = {call.args[0].value for _, call in CALLS if isinstance(call.args[0], ast.Constant)}
    assert set(LOG_EVENTS) - named == {"lines_dropped"}


def test_only_listed_fields_are_written_and_no_text_of_an_exception(kept: Kept) -> None:
    log = logging.getLogger("voxray.test")
    try:
        raise ValueError("the person said canary")
    except ValueError:
        log.exception("lane_failed", extra={"words": "canary", "session": "s1"})
    log.warning("canary said %s", "canary")
    logging.getLogger("asyncio").error("never retrieved: ValueError('canary')")
    assert "canary" not in "".join(kept.lines)
    failed, other, foreign = map(json.loads, kept.lines)
    assert (failed["event"], failed["error"], failed["session"]) == (
        "lane_failed",
        "ValueError",
        "s1",
    )
    assert failed["raised_at"][-1].startswith("tests/observability/test_logs.py:")
    assert (other["event"], other["logger"]) == ("library_message", "voxray.test")
    assert (foreign["logger"], foreign["level"]) == ("asyncio", "error")


def test_a_line_has_the_ids_of_its_task(kept: Kept) -> None:
    log = logging.getLogger("voxray.test")
    with belonging(job="j1", tenant="t1"), belonging(trace="0a"):
        log.info("job_claimed", extra={"attempt": 1})
    log.info("job_released")
    first, second = map(json.loads, kept.lines)
    assert (first["job"], first["tenant"], first["trace"], first["attempt"]) == (
        "j1",
        "t1",
        "0a",
        1,
    )
    assert "job" not in second and second["replica"] == "r1"


def test_the_level_is_that_of_the_configuration(kept: Kept) -> None:
    start_logging("error", "json", {}, [kept])
    logging.getLogger("voxray.test").warning("job_lease_lost")
    logging.getLogger("voxray.test").error("job_failed")
    assert [json.loads(line)["event"] for line in kept.lines] == ["job_failed"]


def test_text_is_one_line_that_begins_with_time_level_and_event() -> None:
    record = logging.makeLogRecord({"msg": "job_ended", "levelname": "INFO", "state": "a\nb"})
    at, *rest = Lines("text", {"replica": "r1"}).format(record).split(" ")
    assert at.endswith("+00:00") and rest == ["INFO", "job_ended", "replica=r1", 'state="a\\nb"']


CANARIES = ("canaryword", "canarychat", "canaryfile", "canarykey", "canaryquery")


def test_sessions_and_requests_are_logged_without_what_clients_say(kept: Kept, talk: bytes) -> None:
    with served() as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        said = {"messages": [{"role": "user", "content": "canarychat"}]}
        key = {"Authorization": "Bearer canarykey", "x-request-id": "req-1"}
        client.post("/v1/chat/completions", json=said, headers=key)
        client.post("/v1/audio/speech", json={"input": "canaryword", "voice": ""})
        client.post("/v1/audio/speech", json={"input": "x", "voice": "canaryword"})
        file = {"file": ("canaryfile.wav", wav(talk))}
        client.post("/v1/transcribe?canaryquery=1", files=file)
        client.get("/canaryquery")
        with websocket(f"ws://{address}{PATH}") as socket:
            socket.send(json.dumps({"type": "start", "grammar": "canaryword", "prompt": "x"}))
            socket.recv()
        events, _ = converse(address, *chunks(talk))
        wait_for(lambda: len(kept.of("session_closed")) == 2)
    lines = "".join(kept.lines)
    assert [canary for canary in CANARIES if canary in lines] == []
    words = {word for it in events if it["type"] == "final" for word in it["text"].split()}
    assert words and not any(f'"{word}"' in lines for word in words)
    ended = kept.of("request_ended")[0]
    assert (ended["route"], ended["status"], ended["request"]) == (
        "/v1/chat/completions",
        "200",
        "req-1",
    )
    opened = kept.of("session_opened")[1]
    closed = next(it for it in kept.of("session_closed") if it["session"] == opened["session"])
    assert opened["session"] == events[0]["session_id"]
    assert (closed["kind"], closed["tenant"]) == ("native", "default")
    assert closed["words"] > 0 and closed["audio_s"] > 1


def test_a_trace_of_the_handshake_is_in_the_lines_of_its_session(kept: Kept) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with served() as address:
        header = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        with websocket(f"ws://{address}{PATH}", additional_headers=header) as socket:
            socket.recv()
        wait_for(lambda: kept.of("session_closed"))
    assert kept.of("session_opened")[0]["trace"] == trace


def writer(path: Path) -> PipeWriter:
    made = PipeWriter(str(path))
    made.setFormatter(Lines("json", {}))
    return made


def record(event: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": event, "levelname": "INFO", **fields})


def write_fifty(pipe: Path) -> None:
    for number in range(50):
        writer(pipe).emit(record("job_ended", code=str(number)))


def test_lines_of_many_writers_come_out_whole(tmp_path: Path) -> None:
    pipe, (out, in_) = tmp_path / "lines", os.pipe()
    with relayed(pipe, in_):
        threads = [threading.Thread(target=write_fifty, args=(pipe,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.close(in_)
    with os.fdopen(out) as read:
        lines = [json.loads(line) for line in read]
    assert len(lines) == 200 and {it["event"] for it in lines} == {"job_ended"}


def test_writing_never_waits_and_tells_what_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    os.mkfifo(path)
    lines = writer(path)
    lines.emit(record("job_released"))  # nobody reads yet
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(2000):
        lines.emit(record("job_ended", code="x" * 100))
    taken = os.read(reader, 1 << 20).splitlines()
    lines.emit(record("job_released"))
    dropped, last = map(json.loads, os.read(reader, 1 << 20).splitlines())
    assert json.loads(taken[0]) == {**json.loads(taken[0]), "event": "lines_dropped", "lines": 1}
    assert last["event"] == "job_released"
    assert (dropped["event"], dropped["lines"]) == ("lines_dropped", 2000 - len(taken) + 1)
    os.close(reader)
