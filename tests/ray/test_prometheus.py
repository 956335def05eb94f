"""A real Prometheus scrapes a real server: everything counted is there, and every board and alert
has data."""

import contextlib
import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from loadtest.speech import wav
from tests.api.sockets.test_conversation_socket import audio, exchange
from tests.api.sockets.test_live_socket import chunks, converse
from tests.observability.test_boards import OF_ALERTS, OF_BOARDS, PROMETHEUS
from tests.ports import free_port
from tests.server import Server, running
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed"),
]
WITHIN_S = 75
TOO_LONG = "hello " * 500
OF_TLS = "ray_voxray_certificate_expires_timestamp_seconds"
"""This server has none; test_tls.py looks at that."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tenants = {"default": {"limits": {"characters_per_day": len(TOO_LONG) - 1}}}
    args = {"profile": "sim", "tenants": tenants}
    with running(tmp_path_factory.mktemp("prometheus"), args) as started:
        yield started


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        return httpx.get(f"{self._url}/{path}", params=query).json()["data"]

    def values(self, expression: str) -> list[float]:
        """Of all series, now; without those that are not a number."""
        found = self.get("query", query=expression)["result"]
        values = [float(it["value"][1]) for it in found]
        return [value for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the project's own files, but more often."""
    folder = tmp_path_factory.mktemp("data")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "2s", "evaluation_interval": "2s"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    discovery = config["scrape_configs"][0]["file_sd_configs"][0]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    discovery["files"] = [str(folder / "discovery.json")]  # another server may have written that
    content = [{"labels": {"job": "ray"}, "targets": [address_of_metrics(server)]}]
    (folder / "discovery.json").write_text(json.dumps(content))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: is_ready(port), 20)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(20)


def address_of_metrics(server: Server) -> str:
    """Ray's agent listens on several ports; one of them is for Prometheus."""
    (agent,) = [it for it in server.descendants() if it.cmdline()[0].startswith("ray::Dash")]
    listening = [it.laddr for it in agent.net_connections("tcp") if it.status == "LISTEN"]
    (port,) = {it.port for it in listening if has_metrics(it.port)}
    return f"127.0.0.1:{port}"


def has_metrics(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return "ray_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    return False


def is_ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200
    return False


@contextlib.contextmanager
def load(server: Server, talk: bytes, speech: bytes) -> Iterator[None]:
    """A little of everything, meanwhile."""
    stop = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not stop.is_set():
                converse(server.address, *chunks(talk))
                exchange(server.address, audio(speech))
                client.post("/v1/audio/speech", json={"input": "hello"})
                client.post("/v1/audio/speech", json={"input": TOO_LONG})
                client.get("/v1/jobs/job_none")
                client.post("/v1/jobs", files={"file": ("talk.wav", wav(talk))})
                stop.wait(0.5)

    working = threading.Thread(target=work)
    working.start()
    try:
        yield
    finally:
        stop.set()
        working.join()


def left_side(expression: str) -> str:
    """What an alert compares."""
    found = re.fullmatch(r"(.*) [<>] [\d. *]+", expression)
    assert found
    return found[1]


def test_every_board_and_alert_has_data_and_nothing_that_is_counted_is_missing(
    server: Server, prometheus: Prometheus, talk: bytes, speech: bytes
) -> None:
    asked = {**OF_BOARDS, **{name: left_side(it) for name, it in OF_ALERTS.items()}}
    empty = {name: it for name, it in asked.items() if OF_TLS not in it}

    def all_had_data() -> bool:
        nonlocal empty
        empty = {name: it for name, it in empty.items() if not prometheus.values(it)}
        return not empty

    with load(server, talk, speech):
        with contextlib.suppress(AssertionError):  # what is missing is said below
            wait_for(all_had_data, WITHIN_S, every_s=2)
    assert empty == {}
    rules = prometheus.get("rules")["groups"][0]["rules"]
    assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(OF_ALERTS, "ok")
    assert_all_is_there(server, prometheus)


def assert_all_is_there(server: Server, prometheus: Prometheus) -> None:
    """Prometheus has every series of /v1/metrics, with the same values of what only grows."""
    totals = {}
    for name, metric in server.get("/v1/metrics")["metrics"].items():
        suffix = "_count" if metric["kind"] == "histogram" else ""
        field = "count" if suffix else "value"
        totals[name + suffix] = (metric["kind"], sum(it[field] for it in metric["series"]))
    counted = {it for it, (kind, total) in totals.items() if total or kind == "gauge"}
    names = set(prometheus.get("label/__name__/values"))
    assert {it for it in counted if f"ray_{it}" not in names} <= {OF_TLS.removeprefix("ray_")}
    steady = ("voxray_words_total", "voxray_final_latency_seconds_count")
    wanted = [[totals[name][1]] for name in steady]
    wait_for(lambda: [prometheus.values(f"sum(ray_{name})") for name in steady] == wanted, 20, 0.5)
