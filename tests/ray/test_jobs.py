"""Jobs on a real Ray cluster, with PostgreSQL and S3, while things are killed and go away."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from tests.jobs.test_jobs import ENDED, Client, code_of, long
from tests.server import Server, running
from tests.stores import BUCKET, S3, Postgres
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

LEASE_S = 2


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, s3: S3
) -> Iterator[Server]:
    """Two workers, two recognisers that take half a second a window; leases are short."""
    postgres.clear()
    two = {"min_replicas": 2, "max_replicas": 2}
    args = {
        "profile": "sim",
        "transcriber": {"scale": two, "sim": {"latency_ms": 400}},
        "diarizer": {"scale": two},
        "storage": {"objects": f"s3://{BUCKET}/ray", "encrypt": True},
        "jobs": {
            "lease_s": LEASE_S,
            "poll_s": 0.2,
            "windows_at_once": 1,
            "cache_entries": 0,
            "scale": {
                "min_replicas": 2,
                "max_replicas": 3,
                "sessions_per_replica": 1,
                "upscale_delay_s": 0,
                "downscale_delay_s": 1,
            },
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_DATABASE_URL", postgres.url)
        patch.setenv("VOXRAY_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        with running(tmp_path_factory.mktemp("jobs"), args) as started:
            yield started


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.address)


@pytest.fixture(scope="module")
def recording(talk: bytes) -> bytes:
    return wav(long(talk, 300))


@pytest.fixture(scope="module")
def unbroken(server: Server, recording: bytes) -> dict[str, Any]:
    """What the recording comes to when nothing is killed."""
    return Client(server.address).done(recording, speakers="2")


def lease_of(postgres: Postgres, id_: str) -> str:
    """Who has the job: the process, and its token."""
    return postgres.ask(f"SELECT lease FROM jobs WHERE id = '{id_}'")


def has_another_lease(postgres: Postgres, id_: str, than: str) -> bool:
    return lease_of(postgres, id_) != than


def worker_of(postgres: Postgres, id_: str) -> int:
    return int(lease_of(postgres, id_).split("-")[0])


def same(client: Client, id_: str, unbroken: dict[str, Any]) -> dict[str, Any]:
    """The job's result, once it is done, is what it is without any trouble."""
    job = client.until(id_, *ENDED, seconds=90)
    assert job["state"] == "completed", job
    result: dict[str, Any] = client.get(f"/v1/jobs/{id_}/results").json()
    for part in ("words", "speaker_turns", "segments", "duration_ms"):
        assert result[part] == unbroken[part], part
    return result


def when(client: Client, id_: str, progress: float) -> None:
    deadline = time.monotonic() + 60
    while True:
        job = client.job(id_)
        if job["state"] == "running" and job["progress"] >= progress:
            return
        assert job["state"] in ("queued", "running") and time.monotonic() < deadline, job
        time.sleep(0.02)


@pytest.mark.parametrize("progress", [0.0, 50.0])
def test_a_worker_killed_at_any_time_loses_nothing(
    server: Server,
    client: Client,
    postgres: Postgres,
    recording: bytes,
    unbroken: dict[str, Any],
    progress: float,
) -> None:
    id_ = client.submit(recording, speakers="2").json()["id"]
    when(client, id_, progress)
    os.kill(worker_of(postgres, id_), signal.SIGKILL)
    result = same(client, id_, unbroken)
    if progress >= 40:
        assert result["performance_metrics"]["windows_resumed"] > 2
    wait_for(lambda: len(server.pids("Worker")) >= 2, 60)


@pytest.mark.parametrize("deployment", ["Transcriber", "Diarizer", "Ingress"])
def test_any_other_replica_killed_loses_nothing(
    server: Server, client: Client, recording: bytes, unbroken: dict[str, Any], deployment: str
) -> None:
    id_ = client.submit(recording, speakers="2").json()["id"]
    when(client, id_, 6.0)
    os.kill(server.pids(deployment)[0], signal.SIGKILL)
    wait_for(lambda: answers(client), 30)
    same(client, id_, unbroken)
    wait_for(lambda: len(server.pids(deployment)) >= (1 if deployment == "Ingress" else 2), 60)


def answers(client: Client) -> bool:
    try:
        return client.get("/v1/ready").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_frozen_worker_writes_nothing_once_its_lease_is_anothers(
    server: Server, client: Client, postgres: Postgres, recording: bytes, unbroken: dict[str, Any]
) -> None:
    id_ = client.submit(recording, speakers="2").json()["id"]
    when(client, id_, 20.0)
    frozen = worker_of(postgres, id_)
    os.kill(frozen, signal.SIGSTOP)
    try:
        same(client, id_, unbroken)
    finally:
        os.kill(frozen, signal.SIGKILL)
    wait_for(lambda: len(server.pids("Worker")) >= 2, 60)


def test_a_database_that_goes_away_loses_nothing(
    client: Client, recording: bytes, unbroken: dict[str, Any], postgres: Postgres
) -> None:
    id_ = client.submit(recording, speakers="2").json()["id"]
    when(client, id_, 10.0)
    postgres.stop()
    try:
        refused = client.submit(recording)
        assert (refused.status_code, code_of(refused)) == (503, "storage_unavailable")
        assert refused.headers["retry-after"]
        assert client.get(f"/v1/jobs/{id_}").status_code == 503
        time.sleep(LEASE_S * 1.5)  # away for longer than a lease
    finally:
        postgres.start()
    wait_for(lambda: client.get(f"/v1/jobs/{id_}").status_code == 200, 30)
    same(client, id_, unbroken)


def test_a_store_that_hangs_loses_nothing(
    client: Client, recording: bytes, unbroken: dict[str, Any], s3: S3
) -> None:
    id_ = client.submit(recording, speakers="2").json()["id"]
    when(client, id_, 10.0)
    s3.freeze(True)
    time.sleep(LEASE_S * 2)  # away for longer than a lease
    s3.freeze(False)
    same(client, id_, unbroken)


def test_a_job_that_ends_its_worker_twice_in_one_place_fails_with_a_reason(
    server: Server, client: Client, postgres: Postgres, talk: bytes
) -> None:
    id_ = client.submit(wav(long(talk, 900))).json()["id"]
    for _ in range(2):
        when(client, id_, 0.0)
        lease = lease_of(postgres, id_)
        os.kill(int(lease.split("-")[0]), signal.SIGKILL)
        wait_for(partial(has_another_lease, postgres, id_, lease), 60)
    job = client.until(id_, *ENDED)
    assert (job["state"], job["error"]["code"]) == ("failed", "worker_lost_twice")
    wait_for(lambda: len(server.pids("Worker")) >= 2, 60)


def test_workers_scale_on_the_queue(server: Server, client: Client, recording: bytes) -> None:
    ids = [client.submit(recording).json()["id"] for _ in range(4)]
    wait_for(lambda: len(server.pids("Worker")) == 3, 60)
    for id_ in ids:
        client.delete(id_)
    wait_for(lambda: len(server.pids("Worker")) == 2, 60)


def test_no_words_are_in_any_log(unbroken: dict[str, Any]) -> None:
    said = " ".join(word["word"] for word in unbroken["words"][:6])
    logs = Path("/tmp/ray/session_latest/logs").rglob("*Worker*")
    assert not any(said in path.read_text(errors="replace") for path in logs if path.is_file())
