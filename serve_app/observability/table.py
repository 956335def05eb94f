"""Every metric of every replica: its name, kind, unit and labels, and how replicas add up. Pure.

JSON (`GET /v1/metrics`), Prometheus and docs/observability.md are made from this table.
"""

from enum import StrEnum
from typing import Literal, NamedTuple


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    merge: Literal["sum", "max"] = "sum"
    """Of gauges: `max` where every replica reports the same value."""


BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Upper bounds of every histogram's buckets, in seconds; the same everywhere: they add up."""

TABLE: list[Metric] = []


def _metric(
    name: str,
    kind: Kind,
    unit: str,
    labels: tuple[str, ...],
    help_: str,
    merge: Literal["sum", "max"] = "sum",
) -> Metric:
    TABLE.append(Metric(f"voxray_{name}", kind, unit, labels, help_, merge))
    return TABLE[-1]


def _counter(name: str, unit: str, help_: str, *labels: str) -> Metric:
    return _metric(name, Kind.COUNTER, unit, labels, help_)


def _gauge(
    name: str, unit: str, help_: str, *labels: str, merge: Literal["sum", "max"] = "sum"
) -> Metric:
    return _metric(name, Kind.GAUGE, unit, labels, help_, merge)


def _histogram(name: str, help_: str, *labels: str) -> Metric:
    return _metric(name, Kind.HISTOGRAM, "seconds", labels, help_)


REPLICAS = _gauge("replicas", "replicas", "Replicas that answer.", "deployment")

# Requests.
REQUESTS = _counter(
    "http_requests_total",
    "requests",
    "HTTP requests and WebSocket handshakes by their answer's status; `aborted` where the client "
    "left before there was one.",
    *("method", "route", "status"),
)
REQUEST_SECONDS = _histogram(
    "http_request_duration_seconds",
    "From a request to the end of its answer, streams included; no WebSockets.",
    "route",
)
REQUEST_RATE = _gauge(
    "http_requests_per_second", "requests per second", "Mean of the last 60 seconds."
)
ERRORS = _counter(
    "errors_total",
    "errors",
    "Errors sent to clients, by code; one request or session may get several.",
    "code",
)

# Usage.
USED = _counter(
    "usage_total",
    "seconds, characters, tokens or requests",
    "What tenants have used; of more than 100, the others' together.",
    "kind",
    "tenant",
)
USAGE_UNWRITTEN = _gauge(
    "usage_unwritten_seconds",
    "seconds",
    "For how long something that was used is not in the database; a crash would lose it.",
    merge="max",
)

# Live sessions.
CONNECTIONS = _gauge("connections_active", "connections", "WebSocket and TCP connections open.")
SESSIONS_ACTIVE = _gauge(
    "sessions_active",
    "sessions",
    "Live sessions open: sockets, conversations, recordings of POST /v1/transcribe.",
)
SESSIONS = _counter("sessions_total", "sessions", "Live sessions opened.")
SESSIONS_REFUSED = _counter(
    "sessions_refused_total",
    "sessions",
    "Sessions and other work refused: too many, or no capacity left.",
)
LIMITED = _counter(
    "limited_total",
    "refusals",
    "Requests, sessions and other work refused because of a limit of their tenant or key.",
    "limit",
)
LIMITS_UNSHARED = _gauge(
    "limits_unshared",
    "replicas",
    "Ingress replicas that cannot share limits, because Redis does not answer.",
)
LEVEL = _gauge(
    "quality_level",
    "level",
    "What is left out under overload: 0 nothing; 1 recordings pause; 2 batches are larger; "
    "3 unchanged partials, 4 most partials, 5 nearly all partials and early replies are left out.",
    merge="max",
)
DRAINING = _gauge("draining", "replicas", "Ingress replicas that take no new work.")
LEVEL_CHANGES = _counter(
    "quality_level_changes_total", "steps", "Steps of the quality level.", "direction"
)
ADMISSION_USED = _gauge(
    "admission_used_share",
    "share",
    "Used of what sessions may fill: the machine (`node`), the event loop (`loop`), the busiest "
    "model replica (`models`).",
    "of",
    merge="max",
)
SESSION_COST = _gauge(
    "admission_session_share",
    "share",
    "What a session takes of each, as far as it is known.",
    "of",
    merge="max",
)
PARTIALS_WITHHELD = _counter(
    "partials_withheld_total", "partials", "Partials left out because of the quality level."
)
SESSIONS_RESUMED = _counter(
    "sessions_resumed_total", "sessions", "Sessions continued after their connection was lost."
)
AUDIO = _counter("audio_seconds_total", "seconds", "Audio received, counted every second.")
UTTERANCES = _counter("utterances_total", "utterances", "Utterances recognised.")
WORDS = _counter("words_total", "words", "Words recognised.")
FINAL_SECONDS = _histogram(
    "final_latency_seconds", "From the confirmed end of an utterance to its final, each final."
)
REPLAYS = _counter(
    "replays_total",
    "replays",
    "Times that a session sent audio again because its model replica was lost.",
)
PARTIALS_DROPPED = _counter(
    "partials_dropped_total", "partials", "Partials left out for clients that do not keep up."
)
LANES = _gauge("lanes", "lanes", "Lanes open from this replica.", "deployment")
LANES_LOST = _counter("lanes_lost_total", "lanes", "Lanes that broke or drained.", "deployment")

# Who may connect.
LOGINS_REFUSED = _counter(
    "logins_refused_total", "logins", "Requests and handshakes without a valid key.", "reason"
)
AUDIT_LOST = _counter(
    "audit_entries_lost_total", "entries", "Entries of the audit log that could not be written."
)

CERTIFICATE_EXPIRES = _gauge(
    "certificate_expires_timestamp_seconds",
    "seconds",
    "When the server's certificate expires, in seconds since 1970.",
    merge="max",
)

# Conversations.
CONVERSATIONS_ACTIVE = _gauge("conversations_active", "conversations", "Conversations open.")
CONVERSATIONS = _counter("conversations_total", "conversations", "Conversations opened.")
HISTORIES_NOT_WRITTEN = _counter(
    "histories_not_written_total",
    "histories",
    "Times that a conversation's history could not be stored after a turn.",
)
REPLIES = _counter("replies_total", "replies", "Replies ended, by outcome.", "status")
STAGE_SECONDS = _histogram(
    "turn_stage_seconds", "Where the time of a completed reply's turn went.", "stage"
)

# Model replicas.
MODEL_SESSIONS = _gauge(
    "model_sessions", "sessions", "Sessions or requests on a model replica's lanes.", "deployment"
)
MADE = _counter(
    "model_output_total",
    "tokens or samples",
    "Tokens (Chat) and samples (Speaker) generated.",
    "deployment",
)

# Jobs.
JOBS = _gauge(
    "jobs",
    "jobs",
    "Jobs that wait or run, by state; every worker reports the same number.",
    "state",
    merge="max",
)
JOBS_OLDEST = _gauge(
    "jobs_oldest_seconds",
    "seconds",
    "Age of the job that has waited longest; every worker reports the same.",
    merge="max",
)
JOBS_ENDED = _counter("jobs_ended_total", "jobs", "Jobs ended by this worker, by state.", "state")
JOBS_RETRIED = _counter("jobs_retried_total", "jobs", "Jobs put back to be tried again.", "code")
JOB_SECONDS = _histogram("job_duration_seconds", "From a job's first start to its end.")
