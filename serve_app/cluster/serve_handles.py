"""Serve handles to all replicas; and in Ray's key-value store the states of model replicas that no
handle reaches yet, and settings that changed at run time."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import psutil
import ray
from ray import serve
from ray.experimental import internal_kv
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.util import metrics as prometheus

from serve_app.cluster.head import HeadUnavailable, ask_head
from serve_app.config.resume import ResumeConfig
from serve_app.lanes.wire import Address, LaneConnection
from serve_app.observability.table import BUCKETS_S, Metric
from serve_app.security.keys import KEY_BYTES, parse_keys

SURVEY_TIMEOUT_S = 3.0
ADDRESS_TIMEOUT_S = 1.0


class ServeReplicaSet:
    """`lanes.ReplicaSet`: every running replica of a deployment, as Serve counts them."""

    def __init__(self, handle: DeploymentHandle[Any], answer: type) -> None:
        self._handle = handle
        self._answer = answer
        self._addresses: dict[str, Address] = {}

    async def replicas(self) -> list[str]:
        """Those that answer; and while any does not, those that did before: to be slow, or beside
        a frozen replica, is not to be gone."""
        answers = await ask_all(self._handle, "address", timeout_s=ADDRESS_TIMEOUT_S)
        known = self._addresses if any(isinstance(it, TimeoutError) for it in answers) else {}
        addresses = [Address.of(it) for it in answers if not isinstance(it, BaseException)]
        self._addresses = {**known, **{address.name: address for address in addresses}}
        return list(self._addresses)

    async def connect(self, name: str) -> LaneConnection:
        return await LaneConnection.open(self._addresses[name], self._answer)


def connected(handle: DeploymentHandle[Any]) -> DeploymentHandle[Any]:
    """The handle, once it is ready to be used.

    Its first use asks Ray's head and blocks, for long if that is away. So a replica calls this when
    it starts, before its loop has sessions.
    """
    handle.options()
    return handle


async def broadcast(handle: DeploymentHandle[Any], method: str, *args: Any) -> list[Any]:
    """The answers of all replicas that answer; [] while there are no replicas."""
    answers = await ask_all(handle, method, *args)
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def ask_all(
    handle: DeploymentHandle[Any], method: str, *args: Any, timeout_s: float = SURVEY_TIMEOUT_S
) -> list[Any]:
    """The answer of each replica, or the exception that it has caused; [] without replicas.

    Each has its own time to answer: `results_async` drops all answers when one replica is frozen.
    """
    try:
        async with asyncio.timeout(timeout_s):
            asked = await handle.broadcast(method, *args)._fetch_replica_results_async()
    except DeploymentUnavailableError:
        return []
    answers = (asyncio.wait_for(it.get_async(), timeout_s) for it in asked)  # type: ignore[no-untyped-call]
    return await asyncio.gather(*answers, return_exceptions=True)


STATES = b"voxray:models:"
PUBLISH_S = 2.0
STALE_S = 30.0
"""The age at which a state belongs to a replica that no longer runs."""


class ModelState:
    """The published state of a model replica, also before it can be reached.

    `bytes_` is the size of its weights: while it loads, `percent` is the share of it that its
    processes have allocated.
    """

    def __init__(self, kind: str, engine: str, model: str | None, bytes_: int) -> None:
        self._state: dict[str, Any] = {"kind": kind, "engine": engine, "model": model}
        self._state |= {"state": "loading", "percent": 0, "reason": None}
        self._bytes = bytes_
        self._key = STATES + str(ray.get_runtime_context().get_actor_id()).encode()
        self._before = _memory()

    async def publish(self, state: str, reason: object = None) -> None:
        self._state["state"] = state
        self._state["percent"] = 100 if state == "warm" else self._state["percent"]
        self._state["reason"] = str(reason)[:500] if reason is not None else None
        await self._put()

    async def keep_publishing(self) -> None:
        while True:
            if self._state["state"] == "loading" and self._bytes:
                taken = await asyncio.to_thread(_memory) - self._before
                self._state["percent"] = max(0, min(99, taken * 100 // self._bytes))
            await self._put()
            await asyncio.sleep(PUBLISH_S)

    async def _put(self) -> None:
        body = orjson.dumps(self._state | {"at": time.time()})
        with contextlib.suppress(HeadUnavailable):
            await ask_head(internal_kv._internal_kv_put, self._key, body)


def _memory() -> int:
    """Bytes allocated by this process and its children."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


async def model_states() -> list[dict[str, Any]]:
    """The state of every model replica, by kind. Old states are deleted. Raises
    `HeadUnavailable`."""
    return await ask_head(_model_states)


def _model_states() -> list[dict[str, Any]]:
    states = []
    for key in internal_kv._internal_kv_list(STATES):
        body = internal_kv._internal_kv_get(key)
        state = orjson.loads(body) if body else {"at": 0.0}
        if time.time() - state.pop("at") < STALE_S:
            states.append(state)
        else:
            internal_kv._internal_kv_del(key)
    return sorted(states, key=lambda state: (state["kind"], -state["percent"]))


SETTINGS = b"voxray:settings"


def keep_changes(asked: dict[str, Any]) -> dict[str, Any]:
    """Store changed settings for every ingress replica; return all changes so far."""
    changes = stored_settings()
    for section, values in asked.items():
        changes[section] = changes.get(section, {}) | values
    internal_kv._internal_kv_put(SETTINGS, orjson.dumps(changes))
    return changes


def stored_settings() -> dict[str, Any]:
    body = internal_kv._internal_kv_get(SETTINGS)
    changes: dict[str, Any] = orjson.loads(body) if body else {}
    return changes


SIGNING_KEY = b"voxray:signing-key"


def signing_keys(config: ResumeConfig) -> list[bytes]:
    """Those in the environment, else one that the first replica made for the whole cluster.

    Raises `ValueError` for keys that cannot be read.
    """
    if config.keys:
        return parse_keys(config.keys)
    made = secrets.token_bytes(KEY_BYTES)
    internal_kv._internal_kv_put(SIGNING_KEY, made, overwrite=False)
    kept: bytes = internal_kv._internal_kv_get(SIGNING_KEY)
    return [kept]


def serve_status(app: str) -> dict[str, Any]:
    """Every deployment's status, and its number of replicas in each state. Blocks."""
    found = serve.status().applications.get(app)
    return {
        name: {"status": it.status.value, "replicas": dict(it.replica_states)}
        for name, it in (found.deployments if found else {}).items()
    }


class Prometheus:
    """A `metrics.Sink`: one replica's series on Ray's Prometheus endpoint, as `ray_voxray_*`."""

    def __init__(self, deployment: str, replica: str) -> None:
        self._tags = {"source": deployment, "replica": replica}
        self._instruments: dict[str, Any] = {}

    def count(self, metric: Metric, labels: tuple[str, ...], by: float) -> None:
        counter = self._instrument(metric, prometheus.Counter)
        counter._record(by, _tags(metric, labels))  # as `inc`, which refuses 0

    def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._instrument(metric, prometheus.Gauge).set(value, _tags(metric, labels))

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        histogram = partial(prometheus.Histogram, boundaries=list(BUCKETS_S))
        self._instrument(metric, histogram).observe(value, _tags(metric, labels))

    def _instrument(self, metric: Metric, new: Callable[..., Any]) -> Any:
        known = self._instruments.get(metric.name)
        if known is None:
            tags = (*metric.labels, *self._tags)
            known = new(metric.name, description=metric.help, tag_keys=tags)
            self._instruments[metric.name] = known.set_default_tags(self._tags)
        return known


def _tags(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
