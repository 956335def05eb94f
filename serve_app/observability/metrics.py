"""The metrics of one replica, and their sum over all replicas."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from serve_app.conversation.events import ReplyEnded
from serve_app.live.events import SessionMetrics
from serve_app.observability.histogram import Histogram
from serve_app.observability.table import (
    AUDIO,
    CONNECTIONS,
    CONVERSATIONS_ACTIVE,
    ERRORS,
    FINAL_SECONDS,
    PARTIALS_WITHHELD,
    REPLAYS,
    REPLIES,
    REQUEST_RATE,
    REQUEST_SECONDS,
    REQUESTS,
    SESSIONS_ACTIVE,
    STAGE_SECONDS,
    TABLE,
    UTTERANCES,
    WORDS,
    Kind,
    Metric,
)

RATE_WINDOW_S = 60

OF_SESSIONS = (
    (AUDIO, "audio_ms", 0.001),
    (UTTERANCES, "utterances", 1),
    (WORDS, "words", 1),
    (REPLAYS, "replays", 1),
    (PARTIALS_WITHHELD, "partials_withheld", 1),
)
"""Metrics, the fields of sessions that they sum, and the factor to the metric's unit."""

Labels = tuple[str, ...]
Snapshot = dict[str, dict[Labels, Any]]
"""Values by metric and labels: numbers, or histograms' states."""


class Sink(Protocol):
    """A second destination of every value: Prometheus, through Ray."""

    def count(self, metric: Metric, labels: Labels, by: float) -> None: ...

    def set(self, metric: Metric, labels: Labels, value: float) -> None: ...

    def observe(self, metric: Metric, labels: Labels, value: float) -> None: ...


class _Watched(NamedTuple):
    metric: Metric
    labels: Labels
    read: Callable[[], float]


class Metrics:
    """The metrics of one replica."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self._watched: list[_Watched] = []
        self._rate = _Rate()
        self.active_connections = 0
        self.active_sessions = 0
        self.active_conversations = 0
        self.watch(CONNECTIONS, lambda: self.active_connections)
        self.watch(SESSIONS_ACTIVE, lambda: self.active_sessions)
        self.watch(CONVERSATIONS_ACTIVE, lambda: self.active_conversations)
        self.watch(REQUEST_RATE, lambda: self._rate.per_second(time.monotonic()))

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        if by > 0:
            values = self._values.setdefault(metric.name, {})
            values[labels] = values.get(labels, 0.0) + by
            if self._sink:
                self._sink.count(metric, labels, by)

    def begin(self, metric: Metric, *labels: str) -> None:
        """A counter is there from 0 on. Prometheus sees no step to the first value of a series."""
        values = self._values.setdefault(metric.name, {})
        if labels not in values:
            values[labels] = 0.0
            if self._sink:
                self._sink.count(metric, labels, 0.0)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self._values.setdefault(metric.name, {})[labels] = value
        if self._sink:
            self._sink.set(metric, labels, value)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        known = self._histograms.setdefault(metric.name, {})
        known.setdefault(labels, Histogram()).observe(seconds)
        if self._sink:
            self._sink.observe(metric, labels, seconds)

    def watch(self, metric: Metric, read: Callable[[], float], *labels: str) -> None:
        """A gauge, or a counter that is kept elsewhere: it is read on each refresh."""
        self._watched.append(_Watched(metric, labels, read))
        if metric.kind is Kind.COUNTER:
            self.begin(metric, *labels)

    def refresh(self) -> None:
        """Read what is watched."""
        for metric, labels, read in self._watched:
            if metric.kind is Kind.GAUGE:
                self.set(metric, read(), *labels)
            else:
                known = self._values.get(metric.name, {}).get(labels, 0.0)
                self.count(metric, *labels, by=read() - known)

    def snapshot(self) -> Snapshot:
        self.refresh()
        histograms = {
            name: {labels: one.state() for labels, one in known.items()}
            for name, known in self._histograms.items()
        }
        return {name: dict(values) for name, values in self._values.items()} | histograms

    # What several places count.

    def count_request(self, method: str, route: str, status: str) -> None:
        self.count(REQUESTS, method, route, status)
        self._rate.add(time.monotonic())

    def time_request(self, route: str, seconds: float) -> None:
        self.observe(REQUEST_SECONDS, seconds, route)

    def count_error(self, code: str) -> None:
        self.count(ERRORS, code)

    def count_final(self, latency_s: float) -> None:
        self.observe(FINAL_SECONDS, latency_s)

    def count_sessions(self, changes: Sequence[tuple[SessionMetrics, SessionMetrics]]) -> None:
        """Each session's metrics when it was counted last, and now."""
        for metric, field, unit in OF_SESSIONS:
            new = sum(getattr(now, field) - getattr(before, field) for before, now in changes)
            self.count(metric, by=new * unit)

    def count_reply(self, ended: ReplyEnded) -> None:
        self.count(REPLIES, ended.status)
        if ended.status == "completed" and ended.stages.total_ms:
            for name, ms in ended.stages._asdict().items():
                self.observe(STAGE_SECONDS, ms / 1000, name.removesuffix("_ms"))


class _Rate:
    """Events of the last minute, by the second."""

    def __init__(self) -> None:
        self._seconds: dict[int, int] = {}

    def add(self, now: float) -> None:
        second = int(now)
        if second not in self._seconds:
            self._seconds = {s: n for s, n in self._seconds.items() if s > second - RATE_WINDOW_S}
        self._seconds[second] = self._seconds.get(second, 0) + 1

    def per_second(self, now: float) -> float:
        since = int(now) - RATE_WINDOW_S
        return sum(n for s, n in self._seconds.items() if s > since) / RATE_WINDOW_S


class Total:
    """The metrics of all replicas together."""

    def __init__(self, snapshots: Iterable[Mapping[str, Mapping[Labels, Any]]]) -> None:
        self._values: dict[str, dict[Labels, float]] = {metric.name: {} for metric in TABLE}
        self._histograms: dict[str, dict[Labels, Histogram]] = {it.name: {} for it in TABLE}
        for snapshot in snapshots:
            for metric in TABLE:
                for labels, value in snapshot.get(metric.name, {}).items():
                    self._add(metric, tuple(labels), value)

    def _add(self, metric: Metric, labels: Labels, value: Any) -> None:
        if metric.kind is Kind.HISTOGRAM:
            known = self._histograms[metric.name].setdefault(labels, Histogram())
            known.add(Histogram(value))
            return
        values = self._values[metric.name]
        together = max(values.get(labels, value), value)
        values[labels] = together if metric.merge == "max" else values.get(labels, 0.0) + value

    def values(self, metric: Metric) -> dict[Labels, float]:
        return self._values[metric.name]

    def sum(self, metric: Metric) -> float:
        return sum(self.values(metric).values())

    def by(self, metric: Metric) -> dict[str, float]:
        """By its only label."""
        return {labels[0]: value for labels, value in self.values(metric).items()}

    def histograms(self, metric: Metric) -> dict[Labels, Histogram]:
        return self._histograms[metric.name]

    def whole(self, metric: Metric) -> Histogram:
        """Over all labels."""
        whole = Histogram()
        for one in self.histograms(metric).values():
            whole.add(one)
        return whole
