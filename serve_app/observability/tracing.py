"""Spans: what took how long, for whom, within a distributed trace.

Without a recorder (the default) nothing is recorded, and a client's trace is passed on as it came.
A span is recorded when it has ended; before that it is only a `Trace`, which children and other
processes may know. Times are those of `time.monotonic`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from serve_app.observability.trace import Trace

Value = str | int | float | bool


class Span(NamedTuple):
    """One that has ended."""

    name: str
    trace: Trace
    parent: Trace | None
    began: float
    ended: float
    attributes: Mapping[str, Value] = {}
    error: str = ""
    """A code, or the class of an exception."""
    serves: bool = False
    """It answers a client, rather than being a part of an answer."""


class Recorder(Protocol):
    def begin(self, parent: Trace | None, trace_id: str = "") -> Trace:
        """A new span below the parent, or of a new trace; whether that is recorded is decided
        here."""

    def record(self, span: Span) -> None: ...

    def stop(self) -> None:
        """Send what is recorded. Blocks."""


_recorder: Recorder | None = None
_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)


def use(recorder: Recorder | None) -> None:
    """From now on, for this process."""
    global _recorder
    _recorder = recorder


def begin(parent: Trace | None) -> Trace | None:
    """A new span below the parent; nobody's parent where nothing is recorded."""
    return _recorder.begin(parent) if _recorder else parent


def record(span: Span) -> None:
    if _recorder and span.trace.sampled:
        _recorder.record(span)


def current() -> Trace | None:
    """Of the running request or job."""
    return _CURRENT.get()


def traceparent(trace: Trace | None) -> str:
    """For another process; "" for none."""
    return str(trace) if trace else ""


@contextmanager
def current_trace(trace: Trace | None) -> Iterator[None]:
    before = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(before)


@contextmanager
def span(name: str, trace: Trace | None = None, **attributes: Value) -> Iterator[Trace | None]:
    """What happens meanwhile in this task is a span below the current one. `trace`: the span, if
    it has been begun."""
    if _recorder is None:
        yield None
        return
    parent, began, error = current(), time.monotonic(), ""
    mine = trace or _recorder.begin(parent)
    try:
        with current_trace(mine):
            yield mine
    except BaseException as raised:
        error = getattr(raised, "code", type(raised).__name__)
        raise
    finally:
        record(Span(name, mine, parent, began, time.monotonic(), attributes, error))


@contextmanager
def of_job(id_: str) -> Iterator[None]:
    """The trace of a job is its id without `job_`, so that all its workers record into one."""
    if _recorder is None:
        yield
        return
    trace = _recorder.begin(None, id_.removeprefix("job_"))
    with span("job", trace, **{"voxray.job": id_}):
        yield
