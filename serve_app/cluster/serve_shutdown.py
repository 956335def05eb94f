"""How a replica learns that Serve ends it."""

from collections.abc import Callable
from typing import Any

from ray._private.worker import global_worker


def shutdown_sign() -> Callable[[], bool]:
    """Tells whether Serve is ending this replica.

    Serve has no hook for the begin of a replica's end: it calls the destructor only when it has
    stopped listening. This reads the flag behind "DRAINING" of the replica's health endpoint, which
    is private to Ray; a test compares it with the installed version.
    """
    replica: Any = global_worker.actors[global_worker.actor_id]._replica_impl

    def is_shutting_down() -> bool:
        return bool(replica._shutting_down)

    is_shutting_down()  # fails here, not in a drain, if Ray has changed
    return is_shutting_down
