"""The audit log: who changed keys and settings, who deleted what, who was not let in.

`audit("key_revoked", id=...)` may be called anywhere, and never waits: a thread writes. It does
nothing before `audited` says where to.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from serve_app.observability.audit_events import ALWAYS, AUDIT_EVENTS
from serve_app.observability.audit_file import append
from serve_app.observability.ids import ids

log = logging.getLogger("voxray.audit")

MOST_WAITING = 10_000
"""Entries that wait for the disk; beyond them they are counted, and the count is written."""

MOST_CHARS = 500
RETRY_S = 1.0
CLOSE_S = 3.0
"""How long the end of a process waits for its last entries."""


class AuditLog:
    """Writes until it is closed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._waiting: queue.Queue[bytes] = queue.Queue(MOST_WAITING)
        self.lost = 0
        self._lost_told = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def add(self, line: bytes) -> None:
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what waits. Blocks, at most `CLOSE_S`."""
        self._closing.set()
        self.add(b"")  # wakes the thread
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing.is_set() or not self._waiting.empty():
            lines = self._next()
            if lost := self.lost - self._lost_told:
                lines += entry("entries_lost", {"count": lost})
            if not self._written(lines):
                return
            self._lost_told += lost

    def _next(self) -> bytes:
        lines = [self._waiting.get()]
        while not self._waiting.empty():
            lines.append(self._waiting.get())
        return b"".join(lines)

    def _written(self, lines: bytes) -> bool:
        """False if it cannot be, and the process ends."""
        told = False
        while lines:
            try:
                append(self._file, lines)
                return True
            except OSError as error:
                if not told:
                    log.error("audit_failed", extra={"cause": type(error).__name__})
                told = True
            if self._closing.wait(RETRY_S):
                return False
        return True


_log: AuditLog | None = None
_ACTOR: ContextVar[Mapping[str, str]] = ContextVar("actor", default={})  # noqa: B039 - never changed


def audit(name: str, /, **fields: Any) -> None:
    """Adds an entry. `name` and `fields` are those of `AUDIT_EVENTS`; fields without a value and
    others are left out."""
    if _log:
        _log.add(entry(name, {**ids(), **_ACTOR.get(), **fields}))


@contextmanager
def acting(key: str, address: str) -> Iterator[None]:
    """Entries that are added meanwhile, in this task and in those it starts, have these fields."""
    before = _ACTOR.set({"key": key, "address": address})
    try:
        yield
    finally:
        _ACTOR.reset(before)


def lost() -> int:
    """Entries of this process that found no place."""
    return _log.lost if _log else 0


@asynccontextmanager
async def audited(file: Path) -> AsyncIterator[None]:
    """Meanwhile entries of this process go to `file`, which is created with the first one."""
    global _log
    before, mine = _log, AuditLog(file)
    _log = mine
    try:
        yield
    finally:
        _log = before
        await asyncio.to_thread(mine.close)


def entry(name: str, given: dict[str, Any]) -> bytes:
    """As a line."""
    shown: dict[str, Any] = {"at": _now(), "event": name}
    for field in (*ALWAYS, *AUDIT_EVENTS[name].fields):
        value = given.get(field)
        if value not in (None, ""):
            shown[field] = value[:MOST_CHARS] if isinstance(value, str) else value
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE, default=str)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
