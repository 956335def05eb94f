"""voxray on three machines: deployed as the page says, and what is lost when machines are."""

from collections.abc import Iterator

import pytest

from loadtest.speech import wav
from tests.api.sockets.test_live_socket import chunks, converse, words
from tests.cluster.deployed import DEPLOYMENTS, LIVE, PORT, Cluster, deployed
from tests.cluster.nodes import Node, require_namespaces
from tests.jobs.test_jobs import Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

THREE = {"scale": {"min_replicas": 3, "max_replicas": 3, "max_replicas_per_node": 2}}
TWO = {"scale": {"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1}}
ARGS = {
    "profile": "sim",
    **dict.fromkeys(("ingress", "vad", "transcriber"), THREE),
    **dict.fromkeys(("chat", "speaker", "diarizer", "jobs"), TWO),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    with deployed(tmp_path_factory.mktemp("nodes"), ARGS) as started:
        started.await_replicas(3, LIVE)
        yield started


def socket_of(node: Node) -> str:
    return f"{node.address}:{PORT}"


@pytest.fixture(scope="module")
def unbroken(cluster: Cluster, talk: bytes) -> str:
    """What is heard when nothing fails."""
    events, _ = converse(socket_of(cluster.head), *chunks(talk))
    return str(words(events))


def test_every_machine_serves_every_other(cluster: Cluster, talk: bytes, unbroken: str) -> None:
    assert len(unbroken.split()) > 20
    for node in cluster.nodes[1:]:
        events, _ = converse(socket_of(node), *chunks(talk))
        assert words(events) == unbroken
    (cluster.nodes[1].folder / "talk.wav").write_bytes(wav(talk))
    server = cluster.url(cluster.nodes[2])
    said = cluster.nodes[1].run(f"voxray transcribe talk.wav --server {server}")
    assert " ".join(said.split()) == unbroken


def test_no_machine_has_all_replicas_of_a_kind(cluster: Cluster) -> None:
    for deployment in DEPLOYMENTS:
        there = cluster.replicas(deployment)
        assert max(there) < sum(there), (deployment, there)
    names = {usage["node"] for usage in cluster.get(cluster.head, "/v1/status")["nodes"]}
    assert names == {node.name for node in cluster.nodes}


def test_jobs_are_those_of_all_machines(cluster: Cluster, talk: bytes) -> None:
    first, second = (Client(socket_of(node)) for node in cluster.nodes[1:])
    id_ = first.submit(wav(talk)).json()["id"]
    assert second.until(id_, "completed", "failed")["state"] == "completed"
    assert second.get(f"/v1/jobs/{id_}/results").json()["full_text"]
    assert cluster.postgres.ask(f"SELECT state FROM jobs WHERE id = '{id_}'") == "completed"
