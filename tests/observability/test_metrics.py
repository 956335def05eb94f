"""What is counted, that replicas add up, and that JSON and Prometheus tell the same."""

import json
import random
import time
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from websockets.sync.client import connect as websocket

from loadtest.percentile import percentile
from loadtest.speech import wav
from serve_app.api import create_app
from serve_app.config import Config, Limits
from serve_app.observability import table
from serve_app.observability.histogram import Histogram
from serve_app.observability.metrics import Metrics, Total
from serve_app.observability.report import report
from serve_app.observability.table import BUCKETS_S, TABLE, Kind, Metric
from tests.api.sockets.test_live_socket import PATH, chunks, converse, of
from tests.fakes import models, served
from tests.waiting import wait_for

SECONDS = st.lists(st.floats(0, 1000), max_size=40)


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.observe(value)
    return made


@given(SECONDS, SECONDS)
def test_the_histogram_of_two_replicas_is_that_of_all_values(
    one: list[float], other: list[float]
) -> None:
    merged = histogram(one).add(histogram(other))
    whole = histogram(one + other)
    assert merged.state()[0] == whole.state()[0] and merged.count == len(one + other)
    assert merged.total == pytest.approx(whole.total)
    assert (merged.least, merged.most) == (whole.least, whole.most)
    assert list(merged.buckets().values())[-1] == merged.count


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_percentile_is_off_by_no_more_than_its_bucket(share: float) -> None:
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(-1, 1) for _ in range(5000))
    true = percentile(values, share)
    bounds = (0.0, *BUCKETS_S)
    high = next(bound for bound in bounds if bound >= true)
    low = bounds[bounds.index(high) - 1]
    assert low * 0.99 <= histogram(values).quantile(share) <= high * 1.01


@given(SECONDS)
def test_percentiles_stay_among_the_values_and_in_order(values: list[float]) -> None:
    made = histogram(values)
    found = [made.quantile(share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)]
    assert found == sorted(found)
    if values:
        assert min(values) <= found[0] and found[-1] == pytest.approx(max(values))


def test_names_follow_prometheus() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert metric.name.startswith("voxray_") and metric.help.endswith(".")
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds")


class ChatDelta:
    """A sink that adds up what it is given, as Prometheus would."""

    def __init__(self) -> None:
        self.values: dict[Any, float] = {}
        self.observed: dict[Any, list[float]] = {}

    def count(self, metric: Metric, labels: tuple[str, ...], by: float) -> None:
        """A step of 0 begins a counter, once."""
        key = (metric.name, labels)
        assert by > 0 or key not in self.values
        assert by >= 0 and len(labels) == len(metric.labels)
        self.values[key] = self.values.get(key, 0) + by

    def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self.values[metric.name, labels] = value

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self.observed.setdefault((metric.name, labels), []).append(value)


def busy() -> tuple[TestClient, Metrics, ChatDelta]:
    written = ChatDelta()
    metrics = Metrics(written)
    config = Config(profile="sim", limits=Limits(max_json_bytes=1000))
    app = create_app(models(), config, metrics)
    return TestClient(app, raise_server_exceptions=False), metrics, written


def ask(client: TestClient, talk: bytes) -> None:
    while client.get("/v1/ready").status_code != 200:
        continue
    client.post("/v1/transcribe", content=wav(talk))
    for _ in range(3):
        client.get("/v1/nothing")
        client.get("/v1/jobs/job_nobody")
    client.delete("/v1/health")
    client.post("/v1/chat/completions", content=b"x" * 2000)  # refused before any route


def test_every_route_counts_requests_errors_and_durations(talk: bytes) -> None:
    client, metrics, _ = busy()
    with client:
        ask(client, talk)
        total = Total([metrics.snapshot()])
    requests = total.values(table.REQUESTS)
    assert requests["POST", "/v1/transcribe", "200"] == 1
    assert requests["GET", "/v1/jobs/{id}", "404"] == 3
    assert requests["GET", "none", "404"] == 3 and requests["POST", "none", "413"] == 1
    assert not any("nobody" in route for _, route, _ in requests), "labels are routes, not paths"
    for method, route, status in requests:
        assert total.histograms(table.REQUEST_SECONDS)[route,].count >= 1, (method, status)
    shown = report(total)
    failed = sum(count for (_, _, status), count in requests.items() if int(status) >= 400)
    assert shown["failed_requests"] == failed >= 8
    assert shown["error_rate"] == round(failed / sum(requests.values()), 4) <= 1


def test_errors_told_in_a_session_do_not_raise_the_error_rate() -> None:
    with served() as address:
        events, _ = converse(address, *["nonsense"] * 50)
        assert len(of("error", events)) == 50
        shown = httpx.get(f"http://{address}/v1/metrics").json()
    assert shown["errors"]["invalid_json"] == 50
    assert shown["error_rate"] == 0 and shown["total_requests"] >= 1


def test_handshakes_are_requests_and_every_final_is_timed(talk: bytes) -> None:
    config = Config(profile="sim", limits=Limits(max_sessions=1))
    with served(config) as address:
        events, _ = converse(address, *chunks(talk))
        shown = httpx.get(f"http://{address}/v1/metrics").json()["metrics"]
    (handshake,) = shown["voxray_http_requests_total"]["series"]
    assert handshake["labels"] == {"method": "GET", "route": PATH, "status": "101"}
    (finals,) = shown["voxray_final_latency_seconds"]["series"]
    assert finals["count"] == len(of("final", events)) == 4
    assert list(finals["buckets"].values())[-1] == 4
    closed = of("closed", events)[0]["metrics"]
    assert finals["sum"] * 1000 / 4 == pytest.approx(closed["final_latency_ms_avg"], abs=1)


def test_audio_is_counted_while_a_session_lasts(talk: bytes) -> None:
    with served() as address, websocket(f"ws://{address}{PATH}") as socket:
        for chunk in chunks(talk):
            socket.send(chunk)
        deadline = time.monotonic() + 20
        while (live := httpx.get(f"http://{address}/v1/metrics").json()["live"])["words"] == 0:
            assert time.monotonic() < deadline
        assert 0 < live["audio_ms"] <= len(talk) // 32
        socket.send('{"type":"stop"}')
        closed = [json.loads(frame) for frame in socket][-1]["metrics"]
        while httpx.get(f"http://{address}/v1/health").json()["active_sessions"]:
            assert time.monotonic() < deadline
        ended = httpx.get(f"http://{address}/v1/metrics").json()["live"]
    assert (ended["audio_ms"], ended["words"]) == (closed["audio_ms"], closed["words"])


def test_prometheus_and_json_tell_one_story(talk: bytes) -> None:
    """Two replicas, each with its own series; their sum is what JSON says."""
    replicas = [busy(), busy()]
    for client, _, _ in replicas:
        with client:
            ask(client, talk)
    total = Total([metrics.snapshot() for _, metrics, _ in replicas])
    for metric in TABLE:
        for labels, value in total.values(metric).items():
            each = [written.values.get((metric.name, labels), 0) for *_, written in replicas]
            told = max(each) if metric.merge == "max" else sum(each)
            assert told == pytest.approx(value), metric.name
        for labels, merged in total.histograms(metric).items():
            observed = [w.observed.get((metric.name, labels), []) for *_, w in replicas]
            assert merged.count == sum(map(len, observed))
            assert merged.total == pytest.approx(sum(map(sum, observed)))
    shown = report(total)
    by_name = shown["metrics"]
    assert by_name.keys() == {metric.name for metric in TABLE}
    series = by_name["voxray_http_requests_total"]["series"]
    assert shown["total_requests"] == sum(one["value"] for one in series) >= 18


def test_facts_that_every_replica_tells_are_not_added_up() -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.set(table.JOBS, 3, "queued")
        metrics.watch(table.REPLICAS, lambda: 1, "Ingress")
        metrics.watch(table.LANES_LOST, lambda: 2, "Vad")
        metrics.refresh()
    total = Total([one.snapshot(), other.snapshot()])
    assert total.by(table.JOBS) == {"queued": 3}
    assert report(total)["ingress_replicas"] == 2
    assert total.by(table.LANES_LOST) == {"Vad": 4}, "a watched counter is not counted twice"


def test_status_says_what_runs() -> None:
    client, _, _ = busy()
    with client:
        wait_for(lambda: client.get("/v1/health").json()["active_jobs"] is not None)
        status = client.get("/v1/status").json()
    assert status["versions"].keys() == {"voxray", "python", "ray"}
    kinds = [engine["kind"] for engine in status["engines"]]
    assert kinds == ["transcriber", "chat", "speaker", "diarizer"]
    assert all(engine["engine"] == "sim" for engine in status["engines"])
    (node,) = status["nodes"]
    assert node["cpu"]["count"] >= 1 and node["memory"]["total_bytes"] > 0
    assert isinstance(node["gpus"], list)
    assert status["jobs"] == {"waiting": 0, "running": 0} and status["active_sessions"] == 0
