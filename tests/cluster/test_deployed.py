"""voxray on three machines, deployed as the page says."""

import pytest

from loadtest.speech import wav
from tests.cluster.deployed import DEPLOYMENTS, Cluster
from tests.cluster.sessions import heard
from tests.jobs.test_jobs import Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_every_machine_serves_every_other(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    talk, words = marked
    assert len(words.split()) > 20
    for node in cluster.nodes:
        assert heard(cluster.address(node), talk) == words
    (cluster.nodes[1].folder / "talk.wav").write_bytes(wav(talk))
    server = cluster.url(cluster.nodes[2])
    said = cluster.nodes[1].run(f"voxray transcribe talk.wav --server {server} 2>/dev/null")
    assert " ".join(said.split()) == words


def test_no_machine_has_all_replicas_of_a_kind(cluster: Cluster) -> None:
    for deployment in DEPLOYMENTS:
        there = cluster.replicas(deployment)
        assert max(there) < sum(there), (deployment, there)
    names = {usage["node"] for usage in cluster.get(cluster.head, "/v1/status")["nodes"]}
    assert names == {node.name for node in cluster.nodes}


def test_jobs_are_those_of_all_machines(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    talk, words = marked
    first, second = (Client(cluster.address(node)) for node in cluster.nodes[1:])
    id_ = first.submit(wav(talk)).json()["id"]
    assert second.until(id_, "completed", "failed", seconds=90)["state"] == "completed"
    assert second.get(f"/v1/jobs/{id_}/results").json()["full_text"] == words
    assert cluster.postgres.ask(f"SELECT state FROM jobs WHERE id = '{id_}'") == "completed"
