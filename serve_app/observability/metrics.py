"""What this ingress counts, and how the counts of several become one answer."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from serve_app.conversation.reply import Stages
from serve_app.conversation.turn import ReplyEnded
from serve_app.live.session import SessionMetrics

WINDOW = 4096
"""Latencies kept for percentiles: the newest ones, so that they speak of now."""

RATE_WINDOW_S = 60.0


class Latencies:
    """The newest latencies of one kind, in ms."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=WINDOW)

    def add(self, ms: float) -> None:
        self._newest.append(ms)

    def values(self) -> list[float]:
        return list(self._newest)


class Metrics:
    """Counters of one ingress replica. Requests are REST calls and live sessions alike."""

    def __init__(self) -> None:
        self.active_connections = 0
        self.active_sessions = 0
        self.total_requests = 0
        self.total_sessions = 0
        self.refused_sessions = 0
        self.errors: dict[str, int] = {}
        self.audio_ms = 0
        self.utterances = 0
        self.words = 0
        self.replays = 0
        self.dropped_partials = 0
        self.request_ms = Latencies()
        self.final_ms = Latencies()
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self.conversations = 0
        self.active_conversations = 0
        self.replies: dict[str, int] = {}
        self.stage_ms = {name: Latencies() for name in Stages._fields}

    def count_request(self) -> None:
        self.total_requests += 1
        self._recent.append(time.monotonic())

    def count_error(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1

    def count_session(self, session: SessionMetrics) -> None:
        self.audio_ms += session.audio_ms
        self.utterances += session.utterances
        self.words += session.words
        self.replays += session.replays
        if session.finals:
            self.final_ms.add(session.final_latency_ms_avg)

    def count_reply(self, ended: ReplyEnded) -> None:
        self.replies[ended.status] = self.replies.get(ended.status, 0) + 1
        if ended.status == "completed" and ended.stages.total_ms:
            for name, value in ended.stages._asdict().items():
                self.stage_ms[name].add(value)

    def snapshot(self) -> dict[str, Any]:
        """Everything, in a form that `merge` adds up."""
        since = time.monotonic() - RATE_WINDOW_S
        return {
            "active_connections": self.active_connections,
            "active_sessions": self.active_sessions,
            "total_requests": self.total_requests,
            "recent_requests": sum(1 for at in self._recent if at >= since),
            "total_sessions": self.total_sessions,
            "refused_sessions": self.refused_sessions,
            "audio_ms": self.audio_ms,
            "utterances": self.utterances,
            "words": self.words,
            "replays": self.replays,
            "dropped_partials": self.dropped_partials,
            "errors": dict(self.errors),
            "request_ms": self.request_ms.values(),
            "final_ms": self.final_ms.values(),
            "conversations": self.conversations,
            "active_conversations": self.active_conversations,
            "replies": dict(self.replies),
            **{f"stage_{name}": kept.values() for name, kept in self.stage_ms.items()},
        }


def merge(snapshots: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the snapshots of all ingress replicas."""
    total: dict[str, Any] = {"ingress_replicas": len(snapshots)}
    for snapshot in snapshots:
        for name, value in snapshot.items():
            if isinstance(value, dict):
                merged = total.setdefault(name, {})
                for key, count in value.items():
                    merged[key] = merged.get(key, 0) + count
            else:
                total[name] = total[name] + value if name in total else value
    return total


def report(total: dict[str, Any]) -> dict[str, Any]:
    """The answer of GET /v1/metrics. Latencies in ms, rates a second or as shares."""
    errors = sum(total["errors"].values())
    return {
        "ingress_replicas": total["ingress_replicas"],
        "active_connections": total["active_connections"],
        "active_sessions": total["active_sessions"],
        "total_requests": total["total_requests"],
        "requests_per_second": round(total["recent_requests"] / RATE_WINDOW_S, 3),
        **_spread(total["request_ms"]),
        "error_rate": round(errors / max(1, total["total_requests"]), 4),
        "errors": total["errors"],
        "live": {
            "total_sessions": total["total_sessions"],
            "refused_sessions": total["refused_sessions"],
            "audio_ms": total["audio_ms"],
            "utterances": total["utterances"],
            "words": total["words"],
            "replays": total["replays"],
            "dropped_partials": total["dropped_partials"],
            "final_latency": _spread(total["final_ms"]),
        },
        "conversations": {
            "active": total["active_conversations"],
            "total": total["conversations"],
            "replies": sum(total["replies"].values()),
            "failed_replies": total["replies"].get("failed", 0),
        },
    }


def conversations(total: dict[str, Any]) -> dict[str, Any]:
    """The answer of GET /speech-to-speech/metrics: replies by outcome."""
    replies = total["replies"]
    failed = replies.get("failed", 0)
    made = sum(replies.values())
    return {
        "active_conversations": total["active_conversations"],
        "total_conversations": total["conversations"],
        "total_replies": made,
        "replies": replies,
        "success_rate": round(1 - failed / made, 4) if made else 1.0,
        "latency_ms": _extent(total["stage_total_ms"]),
    }


def performance(total: dict[str, Any], raw: bool = False) -> dict[str, Any]:
    """The answer of GET /speech-to-speech/performance: every stage of a turn, in ms."""
    stages = {name: total[f"stage_{name}"] for name in Stages._fields}
    return {
        "stages": {
            name: _extent(values) | ({"values": values} if raw else {})
            for name, values in stages.items()
        }
    }


def _extent(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "average": round(sum(ordered) / len(ordered), 2) if ordered else 0.0,
        "min": ordered[0] if ordered else 0.0,
        "max": ordered[-1] if ordered else 0.0,
        "p50": percentile(ordered, 0.50),
        "p95": percentile(ordered, 0.95),
        "p99": percentile(ordered, 0.99),
        "count": len(ordered),
    }


def _spread(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "avg_latency_ms": round(sum(ordered) / len(ordered), 2) if ordered else 0.0,
        "p50_latency_ms": percentile(ordered, 0.50),
        "p95_latency_ms": percentile(ordered, 0.95),
        "p99_latency_ms": percentile(ordered, 0.99),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank of a sorted sequence; 0 of an empty one."""
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def flat(report_: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """A report as the flat numbers that Prometheus takes; counts by error code stay in JSON."""
    numbers: dict[str, float] = {}
    for name, value in report_.items():
        if isinstance(value, dict):
            if name != "errors":
                numbers |= flat(value, f"{prefix}{name}_")
        else:
            numbers[prefix + name] = float(value)
    return numbers
