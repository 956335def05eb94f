"""A rolling update under load, then every deployment from one replica to three and back to one."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from tests.cluster.deployed import DEPLOYMENTS, READY_S, Cluster
from tests.cluster.sessions import Session, during
from tests.jobs.test_jobs import Client
from tests.waiting import timed, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(720)]


def up_to_three(sessions_per_replica: int) -> dict[str, object]:
    return {
        "min_replicas": 1,
        "max_replicas": 3,
        "sessions_per_replica": sessions_per_replica,
        "upscale_delay_s": 0,
        "downscale_delay_s": 12,  # starting ten replicas keeps two cores from everything else
    }


ARGS = {
    "profile": "sim",
    "admission": {"enabled": False},
    "drain": {"timeout_s": 120},
    "ingress": {"scale": up_to_three(4)},
    "vad": {"scale": up_to_three(4)},
    "transcriber": {
        "scale": up_to_three(4),
        "engine": "tests.cluster.marks:MarkTranscriber",
    },
    "chat": {"scale": up_to_three(1), "sim": {"token_ms": 100}},
    "speaker": {"scale": up_to_three(1), "sim": {"realtime_factor": 1.0}},
    "diarizer": {
        "scale": up_to_three(1),
        "engine": "tests.cluster.slow_diarizer:SlowDiarizer",
    },
    "jobs": {"scale": up_to_three(1), "cache_entries": 0},
}
SESSIONS = 12
STAY = 2
UPDATED_S = 300
AT_ONCE = 4


def test_a_rolling_update_cuts_no_session(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    talk, words = marked
    nodes = [node for node in cluster.nodes if cluster.ready(node)]
    sessions = [Session(cluster.address(node)) for node in nodes for _ in range(6)]

    before = processes(cluster)

    def update() -> None:
        cluster.redeploy(ARGS)
        try:
            timed("replaced", lambda: wait_for(lambda: replaced(cluster, before), UPDATED_S, 0.2))
        finally:
            print(cluster.states(), processes(cluster))

    during(sessions, talk, update)
    assert {it.code for it in sessions} == {1000}
    assert all(it.heard_all_of(words) for it in sessions)


def processes(cluster: Cluster) -> dict[str, set[int]]:
    """All replicas of each deployment."""
    return {
        name: {pid for node in cluster.nodes for pid in node.pids(name)} for name in DEPLOYMENTS
    }


def replaced(cluster: Cluster, before: dict[str, set[int]]) -> bool:
    """Only Ingress replicas are left of the old ones: they have sessions."""
    now = processes(cluster)
    old = {name for name, pids in now.items() if pids & before[name]}
    return old <= {"Ingress"} and all(now[name] - before[name] for name in DEPLOYMENTS)


class History(threading.Thread):
    """How many running replicas each deployment had, look by look."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster
        self._over = threading.Event()
        self.looks: list[dict[str, int]] = []

    def __enter__(self) -> "History":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.5):
            if counts := self._cluster.running():
                self.looks.append(counts)

    def all_at(self, count: int) -> bool:
        return bool(self.looks) and set(self.looks[-1].values()) == {count}

    def steps(self, deployment: str) -> list[int]:
        """Every count once, in order."""
        counts = [look[deployment] for look in self.looks]
        return counts[:1] + [after for before, after in pairwise(counts) if after != before]


@contextlib.contextmanager
def requests(cluster: Cluster, talk: bytes) -> Iterator[None]:
    """Chats, speech and recordings, one after the other, several at once."""
    ended = threading.Event()
    url, client = cluster.url(cluster.head), Client(cluster.address(cluster.head))
    message = {"role": "user", "content": "Say something."}

    def again(path: str, body: dict[str, object]) -> None:
        while not ended.is_set():
            httpx.post(f"{url}{path}", json=body, timeout=60).raise_for_status()

    bodies: dict[str, dict[str, object]] = {
        "/v1/chat/completions": {"model": "sim", "messages": [message]},
        "/v1/audio/speech": {
            "model": "tts-1",
            "input": "one two three four " * 5,
            "voice": "alloy",
        },
    }
    with ThreadPoolExecutor(AT_ONCE * len(bodies)) as pool:
        sent = [pool.submit(again, *it) for it in bodies.items() for _ in range(AT_ONCE)]
        jobs = [client.submit(wav(talk[number:])).json()["id"] for number in range(0, 24, 2)]
        try:
            yield
        finally:
            ended.set()
            for id_ in jobs:
                client.delete(id_)
    for one in sent:
        one.result()


def test_every_deployment_scales_up_and_down_under_load(
    cluster: Cluster, marked: tuple[bytes, str]
) -> None:
    talk, words = marked
    address = cluster.address(cluster.head)
    wait_for(lambda: set(cluster.running().values()) == {1}, READY_S, every_s=0.5)
    staying = [Session(address) for _ in range(STAY)]
    leaving = [Session(address) for _ in range(SESSIONS - STAY)]
    with History(cluster) as up:

        def load() -> None:
            with requests(cluster, talk):
                during(
                    leaving, talk, lambda: wait_for(lambda: up.all_at(3), UPDATED_S, every_s=0.2)
                )

        def grow_and_shrink() -> None:
            load()
            wait_for(lambda: up.all_at(1), UPDATED_S, every_s=0.2)

        during(staying, talk, grow_and_shrink)
    print({name: up.steps(name) for name in DEPLOYMENTS})
    assert {it.code for it in staying + leaving} == {1000}
    assert all(it.heard_all_of(words) for it in staying + leaving)
    for name in DEPLOYMENTS:
        assert up.steps(name) in ([1, 2, 3, 2, 1], [1, 3, 2, 1], [1, 2, 3, 1], [1, 3, 1]), name
