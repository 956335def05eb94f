"""What is lost when machines are, and how long it takes until all is as it was.

Each test has clients that resume and clients that do not, at the speed of speech. All of them reach
the cluster through a machine that stays.
"""

import time
from collections.abc import Callable, Sequence

import pytest

from loadtest.percentile import percentile
from tests.cluster.deployed import LIVE, Cluster
from tests.cluster.nodes import Node
from tests.cluster.sessions import LastingSession, Session, Visitor, during
from tests.waiting import timed, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LASTING, PLAIN = 20, 9
NO_CLOSE_FRAME = 1006
CUT_S = 10.0


class Witness:
    """The sessions and the visitor at one machine, and what they noticed."""

    def __init__(self, cluster: Cluster, near: Node, marked: tuple[bytes, str]) -> None:
        address = cluster.address(near)
        self._talk, self._words = marked
        self.lasting = [LastingSession(address) for _ in range(LASTING)]
        self.plain = [Session(address) for _ in range(PLAIN)]
        self.visitor = Visitor(address)

    def watch(self, what: Callable[[], object]) -> None:
        with self.visitor:
            during([*self.lasting, *self.plain], self._talk, what)
        print(self)

    def right(self, sessions: Sequence[Session]) -> bool:
        return all(session.heard_all_of(self._words) for session in sessions)

    @property
    def moved(self) -> list[LastingSession]:
        return [session for session in self.lasting if session.connections > 1]

    @property
    def gap_p95_s(self) -> float:
        return percentile(sorted(session.gap_s for session in self.moved), 0.95)

    @property
    def kept(self) -> list[Session]:
        return [session for session in self.plain if session.whole]

    def __str__(self) -> str:
        codes = sorted(str(session.code) for session in self.plain)
        wrong = [amiss for it in self.lasting if (amiss := it.amiss(self._words))]
        return (
            f"resumed {len(self.moved)} of {LASTING}, gap p95 {self.gap_p95_s:.1f} s, "
            f"{len(wrong)} wrong {wrong or ''}; without resume: {codes}, "
            f"gap of those kept {max((it.gap_s for it in self.kept), default=0):.1f} s; "
            f"nobody let in for {self.visitor.outage_s:.1f} s {self.visitor.answers}"
        )


def serving(cluster: Cluster) -> Node:
    """A machine other than the head that has sessions to lose."""
    return next(node for node in cluster.nodes[:0:-1] if node.pids("Ingress"))


def another(cluster: Cluster, lost: Node) -> Node:
    """One that stays, and has an HAProxy."""
    return next(node for node in cluster.nodes if node is not lost and node.pids("Ingress"))


def test_a_machine_is_lost(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    lost = serving(cluster)

    def lose() -> None:
        lost.kill()
        timed("replicas elsewhere", cluster.await_complete)

    witness = Witness(cluster, another(cluster, lost), marked)
    witness.watch(lose)
    assert witness.moved and witness.right(witness.lasting)
    assert witness.gap_p95_s < 3
    assert witness.kept and witness.right(witness.kept)
    assert {it.code for it in witness.plain if not it.whole} == {NO_CLOSE_FRAME}
    assert witness.visitor.outage_s < 3
    cluster.rejoin(lost)


def test_the_network_of_a_machine_is_away(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    apart = serving(cluster)

    def cut() -> None:
        apart.cut(True)
        time.sleep(CUT_S)
        apart.cut(False)
        timed("there again", lambda: wait_for(lambda: cluster.ready(apart), 60))

    witness = Witness(cluster, another(cluster, apart), marked)
    witness.watch(cut)
    cluster.await_complete()
    cluster.await_steady(apart)
    assert witness.right(witness.lasting) and witness.right(witness.kept)
    assert witness.visitor.outage_s < 6


def test_the_head_is_lost_and_comes_back(cluster: Cluster, marked: tuple[bytes, str]) -> None:
    head, near = cluster.head, serving(cluster)
    assert all(sum(cluster.replicas(name)[1:]) for name in LIVE), "no machine has all of a kind"

    def lose_and_restore() -> None:
        head.kill()
        time.sleep(CUT_S)
        assert cluster.ready(near)
        assert cluster.answer(near, "/v1/status").status_code == 503
        timed("the head is started", lambda: cluster.rejoin(head))
        timed("all replicas there", cluster.await_complete)

    witness = Witness(cluster, near, marked)
    witness.watch(lose_and_restore)
    assert witness.right(witness.lasting) and witness.right(witness.kept)
    assert witness.gap_p95_s < 3
    assert witness.visitor.outage_s < 3
    wait_for(lambda: cluster.answer(near, "/v1/status").status_code == 200, 30)
