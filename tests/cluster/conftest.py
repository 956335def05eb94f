"""Three machines with voxray on them, which all tests of this folder that need machines share."""

from collections.abc import Iterator

import pytest

from tests.cluster.deployed import Cluster, deployed
from tests.cluster.marks import marked_talk
from tests.cluster.nodes import require_namespaces

THREE = {"scale": {"min_replicas": 3, "max_replicas": 3, "max_replicas_per_node": 2}}
TWO = {"scale": {"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1}}
ARGS = {
    "profile": "sim",
    "admission": {"enabled": False},  # the machines share their processors
    **dict.fromkeys(("ingress", "vad"), THREE),
    "transcriber": {"engine": "tests.cluster.marks:MarkTranscriber", **THREE},
    **dict.fromkeys(("chat", "speaker", "diarizer", "jobs"), TWO),
}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    with deployed(tmp_path_factory.mktemp("nodes"), ARGS) as started:
        started.await_complete()
        yield started


@pytest.fixture(scope="session")
def marked() -> tuple[bytes, str]:
    """A talk, and the words that are heard in it when none is lost."""
    return marked_talk()
