"""Whatever is kept or said belongs to a tenant: rows, objects, cached results, keys of requests,
webhooks, log lines, metrics."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.identity.principal import ALL, Scope
from serve_app.jobs.tables import metadata
from serve_app.observability.logs import entry
from serve_app.observability.table import USED
from tests.fakes import served, working
from tests.identity.keys import bearer, keyed
from tests.jobs.test_jobs import ENDED
from tests.jobs.test_webhooks import hooked, receiver, secret, status
from tests.ports import free_port
from tests.usage.test_doors import Server, conversation, live, realtime, socket_io, tcp
from tests.waiting import wait_for

__all__ = ["secret"]

OF_THE_SERVER = {"lane_opened", "lane_lost", "drain_began", "drain_ended", "library_message"}
"""Events that are nobody's."""


def test_every_table_has_a_tenant() -> None:
    assert [name for name, table in metadata.tables.items() if "tenant" not in table.c] == []


@contextmanager
def both(config: Config, folder: Path) -> Iterator[tuple[Server, httpx.Client, httpx.Client]]:
    """A server with a worker, and its clients acme and bolt."""
    users = ALL - {Scope.ADMIN}
    auth = keyed(folder, acme=users, bolt=users, root={Scope.ADMIN})
    config = config.model_copy(update={"auth": auth})
    with served(config) as address, working(config):
        one, other = (
            httpx.Client(base_url=f"http://{address}", headers=bearer(it), timeout=30)
            for it in ("acme", "bolt")
        )
        with one, other:
            yield Server(address, config.tcp.port), one, other


def done(client: httpx.Client, body: bytes, **asked: Any) -> dict[str, Any]:
    headers = asked.pop("headers", {})
    files = {"file": ("a.wav", body)}
    job = client.post("/v1/jobs", files=files, data=asked, headers=headers).json()

    def ended() -> dict[str, Any]:
        seen: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        return seen if seen["state"] in ENDED else {}

    return wait_for(ended, 30)


def test_results_and_keys_of_requests_are_found_again_by_their_tenant_only(
    tmp_path: Path, speech: bytes
) -> None:
    data = tmp_path / "data"
    with both(hooked(data), tmp_path) as (_, acme, bolt):
        key = {"headers": {"idempotency-key": "once"}}
        first, same = (done(acme, wav(speech), **key) for _ in range(2))
        theirs = done(bolt, wav(speech), **key)
        assert first["id"] == same["id"] != theirs["id"]
        assert not first["cached"] and not theirs["cached"]
        assert done(acme, wav(speech))["cached"] and done(bolt, wav(speech))["cached"]
        kept = {it.relative_to(data / "objects").parts[0] for it in data.glob("objects/*/*")}
        assert kept == {"acme", "bolt"}


def test_webhooks_are_seen_and_tried_again_by_their_tenant_only(
    tmp_path: Path, speech: bytes
) -> None:
    config = hooked(tmp_path / "data", max_attempts=1)
    with receiver(status(500)) as hook, both(config, tmp_path) as (_, acme, bolt):
        done(acme, wav(speech), webhook=hook.url)
        (failed,) = wait_for(lambda: acme.get("/v1/webhooks?state=dead").json()["data"])
        assert bolt.get("/v1/webhooks").json()["data"] == []
        retry = f"/v1/webhooks/{failed['id']}/retry"
        assert (bolt.post(retry).status_code, acme.post(retry).status_code) == (404, 202)


class Lines(logging.Handler):
    """What would be written, in the place where it is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(entry(record, {}))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    logger, handler = logging.getLogger("voxray"), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_log_lines_and_metrics_say_whose_they_are(
    tmp_path: Path, speech: bytes, lines: list[dict[str, Any]]
) -> None:
    config = hooked(tmp_path / "data", max_attempts=1)
    config = config.model_copy(update={"tcp": config.tcp.model_copy(update={"port": free_port()})})
    with receiver(status(500)) as hook, both(config, tmp_path) as (server, acme, _):
        for door in (live, conversation, tcp, realtime, socket_io):
            door(server, speech)
        assert done(acme, wav(speech), webhook=hook.url)["state"] == "completed"
        wait_for(lambda: any(line["event"] == "webhook_failed" for line in lines))
        seen = httpx.get(f"http://{server.address}/v1/metrics", headers=bearer("root")).json()
    nobodys = {line["event"] for line in lines if line.get("tenant") != "acme"}
    root = [line for line in lines if line.get("tenant") == "root"]
    assert {line["event"] for line in root} == {"request_ended"}
    assert nobodys - {"request_ended"} <= OF_THE_SERVER
    assert {line["event"] for line in lines} >= {
        "request_ended",
        "session_opened",
        "session_closed",
        "reply_ended",
        "job_submitted",
        "job_claimed",
        "job_ended",
    }
    series = seen["metrics"][USED.name]["series"]
    assert {it["labels"]["tenant"] for it in series} == {"acme", "root"}
