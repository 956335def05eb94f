"""Which replicas there are, while some of them do not answer."""

import asyncio
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentBroadcastResponse

from deployments.interfaces import Hypothesis
from serve_app.cluster import serve_handles
from serve_app.cluster.serve_handles import ServeReplicaSet, ask_all
from serve_app.lanes.wire import Address


class Replica:
    """Answers with its address; `frozen`: never; `dead`: with Ray's error."""

    def __init__(self, name: str, how: str = "") -> None:
        self.name = name
        self.how = how

    async def get_async(self) -> dict[str, Any]:
        if self.how == "frozen":
            await asyncio.Event().wait()
        if self.how == "dead":
            raise ConnectionError(self.name)
        return Address(self.name, "host", 1, "token")._asdict()


class Handle:
    def __init__(self, *replicas: Replica) -> None:
        self.replicas_: list[Replica] | None = list(replicas)

    def broadcast(self, method: str, *args: Any) -> "Handle":
        return self

    async def _fetch_replica_results_async(self) -> list[Replica]:
        if self.replicas_ is None:
            raise DeploymentUnavailableError(None)  # type: ignore[arg-type]
        return self.replicas_


def test_ray_serve_still_has_what_is_used_of_its_inside() -> None:
    assert hasattr(DeploymentBroadcastResponse, "_fetch_replica_results_async")


def test_a_frozen_replica_costs_its_own_answer_only() -> None:
    handle: Any = Handle(Replica("one"), Replica("two", "frozen"), Replica("three", "dead"))
    one, two, three = asyncio.run(ask_all(handle, "address", timeout_s=0.05))
    assert one["name"] == "one"
    assert isinstance(two, TimeoutError) and isinstance(three, ConnectionError)


def test_slow_is_not_gone_but_unlisted_and_dead_are(monkeypatch: Any) -> None:
    monkeypatch.setattr(serve_handles, "ADDRESS_TIMEOUT_S", 0.05)
    handle: Any = Handle(Replica("one"), Replica("two"))

    async def go() -> None:
        replica_set = ServeReplicaSet(handle, Hypothesis)
        assert await replica_set.replicas() == ["one", "two"]
        handle.replicas_ = [Replica("one"), Replica("two", "frozen")]
        assert await replica_set.replicas() == ["one", "two"], "it may just be slow"
        handle.replicas_ = [Replica("one"), Replica("two", "dead"), Replica("three")]
        assert await replica_set.replicas() == ["one", "three"]
        handle.replicas_ = [Replica("three")]
        assert await replica_set.replicas() == ["three"], "one drains"
        handle.replicas_ = None
        assert await replica_set.replicas() == []

    asyncio.run(go())
