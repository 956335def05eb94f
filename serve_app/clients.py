"""Model replicas and fellow ingress replicas, found over Serve handles."""

from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.util import metrics as prometheus

from serve_app.lane_wire import Address, LaneConnection

SURVEY_TIMEOUT_S = 3.0


class RemoteFleet:
    """`lanes.Fleet`: every running replica of a deployment, as Serve counts them."""

    def __init__(self, handle: DeploymentHandle[Any], answer: type) -> None:
        self._handle = handle
        self._answer = answer
        self._addresses: dict[str, Address] = {}

    async def replicas(self) -> list[str]:
        addresses = [Address(*told) for told in await broadcast(self._handle, "address")]
        self._addresses = {address.name: address for address in addresses}
        return list(self._addresses)

    async def connect(self, name: str) -> LaneConnection:
        return await LaneConnection.open(self._addresses[name], self._answer)


async def broadcast(handle: DeploymentHandle[Any], method: str) -> list[Any]:
    """The answers of all replicas that give one; [] while there are none."""
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
