"""What the running request or job is, for its log lines and its calls to models.

A request and a job each have a task, so a context variable carries their ids. Many sessions share
one task: what is logged for a session names its ids with the call.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_IDS: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039 - never changed


def ids() -> Mapping[str, str]:
    return _IDS.get()


@contextmanager
def belonging(**more: str) -> Iterator[None]:
    """Lines that are logged meanwhile, in this task and in those it starts, have these ids."""
    before = _IDS.set({**_IDS.get(), **more})
    try:
        yield
    finally:
        _IDS.reset(before)
