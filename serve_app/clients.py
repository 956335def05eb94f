"""The interfaces of deployments/ spoken over Serve handles. Owns routing and cancellation.

Two facts of Serve are kept here so that nobody else needs to know them: cancelling the task that
reads a streaming response does not stop the replica, only the response's own `cancel` does; and a
handle routes each call by itself, so a call that must reach one replica names it as `session_id`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from ray.util import metrics as prometheus

SURVEY_TIMEOUT_S = 3.0


class LaneRouter(RequestRouter):  # type: ignore[misc]
    """Sends a call to the replica it names, or to any when that one has gone.

    The wrong replica answers `LaneLost`, which is how a lane learns that its own is draining.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        wanted = pending_request.metadata.session_id if pending_request else ""
        named = [r for r in candidate_replicas if r.replica_id.unique_id == wanted]
        return [named or candidate_replicas]


class RemoteReplica:
    """`lanes.Replica`: one replica behind a handle."""

    def __init__(self, handle: DeploymentHandle[Any], name: str) -> None:
        here = handle.options(
            session_id=name,
            _by_reference=False,
            request_serialization="pickle",
            response_serialization="pickle",
        )
        self._exchange = here.options(method_name="exchange")
        self._listen = here.options(method_name="listen", stream=True)

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> Any:
        response = self._exchange.remote(lane, batch, left)
        try:
            return await response
        except BaseException:
            response.cancel()
            raise

    async def listen(self, lane: str) -> AsyncIterator[Any]:
        response = self._listen.remote(lane)
        try:
            async for item in response:
                yield item
        finally:
            response.cancel()


class RemoteFleet:
    """`lanes.Fleet`: every running replica of a deployment."""

    def __init__(self, handle: DeploymentHandle[Any], streams: bool) -> None:
        self._handle = handle
        self.streams = streams

    async def replicas(self) -> list[str]:
        return [str(name) for name in await broadcast(self._handle, "whoami")]

    def replica(self, name: str) -> RemoteReplica:
        return RemoteReplica(self._handle, name)


async def broadcast(handle: DeploymentHandle[Any], method: str) -> list[Any]:
    """The answers of all replicas that give one; [] while there are none."""
    from ray.serve.exceptions import DeploymentUnavailableError

    try:
        answers = await handle.broadcast(method).results_async(
            timeout_s=SURVEY_TIMEOUT_S, return_exceptions=True
        )
    except DeploymentUnavailableError:
        return []
    return [answer for answer in answers if not isinstance(answer, Exception)]


class PrometheusExporter:
    """Shows a flat snapshot of numbers on Ray's Prometheus endpoint, as gauges `voxray_*`."""

    def __init__(self) -> None:
        self._gauges: dict[str, prometheus.Gauge] = {}

    def export(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            if name not in self._gauges:
                self._gauges[name] = prometheus.Gauge(f"voxray_{name}", description=name)
            self._gauges[name].set(value)
