"""Metrics as JSON answers. Pure.

Counts are since the start of the replicas that answer; percentiles are estimated from merged
histograms (`Histogram.quantile`), in ms.
"""

from typing import Any

from serve_app.conversation.reply import Stages
from serve_app.observability import table
from serve_app.observability.histogram import Histogram
from serve_app.observability.metrics import Labels, Total
from serve_app.observability.table import TABLE, Kind, Metric

STATUS = table.REQUESTS.labels.index("status")


def report(total: Total) -> dict[str, Any]:
    """The answer of GET /v1/metrics: a summary, then the whole table."""
    requests, failed = requests_of(total)
    return {
        "ingress_replicas": int(total.by(table.REPLICAS).get("Ingress", 1)),
        "active_connections": int(total.sum(table.CONNECTIONS)),
        "active_sessions": int(total.sum(table.SESSIONS_ACTIVE)),
        "total_requests": requests,
        "failed_requests": failed,
        "error_rate": round(failed / requests, 4) if requests else 0.0,
        "requests_per_second": round(total.sum(table.REQUEST_RATE), 3),
        **_latency(total.whole(table.REQUEST_SECONDS)),
        "errors": _whole(total.by(table.ERRORS)),
        "live": _live(total),
        "conversations": _conversations(total),
        "jobs": _whole(total.by(table.JOBS) | total.by(table.JOBS_ENDED)),
        "metrics": {metric.name: _shown(metric, total) for metric in TABLE},
    }


def requests_of(total: Total) -> tuple[int, int]:
    """How many were made, and how many of them were answered with a status of 400 or more."""
    answered = total.values(table.REQUESTS)
    failed = sum(n for labels, n in answered.items() if _is_error(labels[STATUS]))
    return int(sum(answered.values())), int(failed)


def _is_error(status: str) -> bool:
    return status.isdecimal() and int(status) >= 400


def _live(total: Total) -> dict[str, Any]:
    return {
        "total_sessions": int(total.sum(table.SESSIONS)),
        "refused_sessions": int(total.sum(table.SESSIONS_REFUSED)),
        "audio_ms": round(total.sum(table.AUDIO) * 1000),
        "utterances": int(total.sum(table.UTTERANCES)),
        "words": int(total.sum(table.WORDS)),
        "replays": int(total.sum(table.REPLAYS)),
        "dropped_partials": int(total.sum(table.PARTIALS_DROPPED)),
        "final_latency": _latency(total.whole(table.FINAL_SECONDS)),
    }


def _conversations(total: Total) -> dict[str, Any]:
    return {
        "active": int(total.sum(table.CONVERSATIONS_ACTIVE)),
        "total": int(total.sum(table.CONVERSATIONS)),
        "replies": int(total.sum(table.REPLIES)),
        "failed_replies": int(total.by(table.REPLIES).get("failed", 0)),
    }


def conversations(total: Total) -> dict[str, Any]:
    """The answer of GET /speech-to-speech/metrics: replies by outcome."""
    replies = _whole(total.by(table.REPLIES))
    failed, made = replies.get("failed", 0), sum(replies.values())
    return {
        "active_conversations": int(total.sum(table.CONVERSATIONS_ACTIVE)),
        "total_conversations": int(total.sum(table.CONVERSATIONS)),
        "total_replies": made,
        "replies": replies,
        "success_rate": round(1 - failed / made, 4) if made else 1.0,
        "latency_ms": _extent(total.histograms(table.STAGE_SECONDS).get(("total",), Histogram())),
    }


def performance(total: Total, buckets: bool = False) -> dict[str, Any]:
    """The answer of GET /speech-to-speech/performance: every stage of a turn, in ms; the bounds of
    `buckets` are seconds."""
    known = total.histograms(table.STAGE_SECONDS)
    stages = {name: known.get((name[:-3],), Histogram()) for name in Stages._fields}
    return {
        "stages": {
            name: _extent(stage) | ({"buckets": stage.buckets()} if buckets else {})
            for name, stage in stages.items()
        }
    }


def _shown(metric: Metric, total: Total) -> dict[str, Any]:
    is_histogram = metric.kind is Kind.HISTOGRAM
    series: dict[Labels, Any] = {**(total.histograms if is_histogram else total.values)(metric)}
    return {
        "kind": metric.kind.value,
        "unit": metric.unit,
        "help": metric.help,
        "series": [
            {"labels": dict(zip(metric.labels, labels, strict=True)), **_value(value)}
            for labels, value in sorted(series.items())
        ],
    }


def _value(value: float | Histogram) -> dict[str, Any]:
    if isinstance(value, Histogram):
        return {"count": value.count, "sum": round(value.total, 6), "buckets": value.buckets()}
    return {"value": round(value, 6)}


def _whole(values: dict[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _latency(histogram: Histogram) -> dict[str, float]:
    return {
        "avg_latency_ms": _ms(histogram.mean),
        "p50_latency_ms": _ms(histogram.quantile(0.50)),
        "p95_latency_ms": _ms(histogram.quantile(0.95)),
        "p99_latency_ms": _ms(histogram.quantile(0.99)),
    }


def _extent(histogram: Histogram) -> dict[str, float]:
    return {
        "average": _ms(histogram.mean),
        "min": _ms(histogram.least),
        "max": _ms(histogram.most),
        "p50": _ms(histogram.quantile(0.50)),
        "p95": _ms(histogram.quantile(0.95)),
        "p99": _ms(histogram.quantile(0.99)),
        "count": histogram.count,
    }
