"""How `voxray run` stops: what its supervisor says, and the drain of its replicas."""

import asyncio
import logging
import os
import threading

from serve_app.cli import DONE

log = logging.getLogger("voxray.stopping")

TIMEOUT_S = 30.0
"""Of a drain, unless it is configured."""

DRAINED = ("Ingress", "Worker")
"""The deployments that have something to end in order; the others serve them until then."""


class Orders:
    """What the supervisor says over its pipe: a byte means drain, its end means stop at once."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.started = threading.Event()
        self.drain = threading.Event()
        self.stop = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        to_drain = bool(os.read(self._pipe, 1))
        if not self.started.is_set():  # nothing to drain; the supervisor ends all processes
            os._exit(DONE)
        self.drain.set()
        if to_drain:
            os.read(self._pipe, 1)
        self.stop.set()


def drain(stop: threading.Event, within_s: float) -> None:
    """Returns when the replicas have drained, when they take longer than `within_s`, or when
    `stop` is set."""

    def ask() -> None:
        try:
            asyncio.run(_drain_replicas(within_s))
        except Exception as error:  # any of Ray's: there is nothing left to wait for
            log.warning("drain_cut_short", exc_info=error)
        stop.set()

    threading.Thread(target=ask, daemon=True).start()
    stop.wait()


async def _drain_replicas(within_s: float) -> None:
    from ray import serve

    from serve_app.replicas import APP_NAME

    handles = [serve.get_deployment_handle(name, APP_NAME) for name in DRAINED]
    draining = [handle.broadcast("drain") for handle in handles]
    await asyncio.gather(
        *(it.results_async(timeout_s=within_s, return_exceptions=True) for it in draining)
    )
