"""Every event that voxray logs: its name, its level and the fields it may have. Pure.

A log call names its event, `log.info("session_opened", extra={"session": id_})`, and nothing else
of it is written: no other fields, no message, no text of an exception. So a log never has words,
audio or keys. docs/observability.md is made from this table.
"""

from typing import NamedTuple

IDS = ("tenant", "request", "session", "turn", "job", "trace")
"""What an event belongs to; any event may have these fields."""


class LogEvent(NamedTuple):
    name: str
    level: str
    fields: tuple[str, ...]
    help: str


LOG_EVENTS: dict[str, LogEvent] = {}


def _event(level: str, name: str, help_: str, *fields: str) -> None:
    LOG_EVENTS[name] = LogEvent(name, level, fields, help_)


# Replicas and their engines.
_event("info", "replica_started", "A replica runs.", "version")
_event("info", "engine_loaded", "An engine can be used.", "engine", "load_s")
_event("error", "engine_died", "An engine has stopped for good; its replica ends, too.", "kind")
_event("error", "engine_request_failed", "An engine failed in an unexpected way.")
_event("error", "recognition_failed", "Recognising an utterance failed in an unexpected way.")
_event("warning", "batch_too_large", "A batch does not fit into memory; run one by one.", "items")
_event("warning", "utterance_cut_short", "The model ended before the audio did.", "tokens")
_event("warning", "lines_dropped", "Lines for stdout were dropped: nobody read them.", "lines")
_event("warning", "head_silent", "Ray's head does not answer.", "cause")
_event("warning", "sample_failed", "A sample of the last hour could not be taken.", "cause")
_event("info", "settings_changed", "Settings were changed at run time.", "keys")

# The server's certificate.
_event("info", "certificate_loaded", "New connections get this certificate.")
_event("warning", "certificate_refused", "The files of `tls` cannot be used; the last ones stay.")

# Keys.
_event(
    "warning",
    "keys_not_needed",
    "On a cluster: anyone who reaches the port can use the server; see docs/keys.md.",
)
_event("warning", "key_file_refused", "The file of keys cannot be used; the last ones stay valid.")
_event("warning", "keys_unavailable", "Keys cannot be read; the last ones stay valid.", "cause")
_event("warning", "pepper_missing", "Keys were made with peppers that are not here.", "peppers")
_event("info", "token_keys_read", "An identity provider's keys have changed.", "keys", "skipped")
_event(
    "warning",
    "token_keys_unavailable",
    "An identity provider's keys cannot be read; the last ones stay valid.",
    "cause",
)
_event("error", "audit_failed", "The audit log cannot be written; tried again.", "cause")

# Lanes.
_event("info", "lane_opened", "A lane to a model replica is open.", "to")
_event("warning", "lane_refused", "No lane to a model replica can be opened.", "to", "cause")
_event("warning", "lane_lost", "A lane to a model replica broke.", "to", "cause")
_event("error", "lane_failed", "The model behind a lane failed in an unexpected way.")
_event("warning", "replicas_unknown", "Ray cannot say which replicas there are.", "cause")
_event("error", "request_quarantined", "A request that crashed two replicas is not sent again.")
_event("info", "voices_unknown", "The speaker has not said yet which voices it has.", "cause")

# Requests.
_event("info", "request_ended", "A request was answered.", *("method", "route", "status", "ms"))
_event("error", "request_failed", "A request failed in an unexpected way.", "method", "route")
_event("error", "connection_failed", "A connection failed in an unexpected way.")

# Sessions and conversations.
_event("info", "session_opened", "A live session began.", "kind")
_event(
    "info",
    "session_closed",
    "A live session ended; `code` is the error that ended it, if one did.",
    *("kind", "code", "open_s", "audio_s", "utterances", "words", "errors", "replays"),
)
_event("info", "session_resumed", "A socket went on with a session that lost its own.", "epoch")
_event("warning", "takeovers_untold", "Old sockets of resumed sessions may be open.", "cause")
_event("warning", "history_not_written", "A conversation's history was not stored.", "cause")
_event("warning", "usage_not_written", "What was used is kept in memory for now.", "cause")
_event("warning", "quality_changed", "The brownout level, 0 when all is well.", "to", "cause")
_event("info", "drain_began", "The replica takes no new work.", "sessions", "timeout_s")
_event("info", "drain_ended", "What is still open gets its last words now.", "sessions")
_event("warning", "drain_cut_short", "The replicas could not be told to drain.")
_event("error", "session_failed", "A session failed in an unexpected way.", "fact")
_event(
    "info",
    "reply_ended",
    "A reply ended.",
    *("status", "code", "audio_ms", "transcribe_ms", "first_token_ms", "first_audio_ms"),
    *("total_ms", "overhead_ms"),
)
_event("error", "reply_failed", "Work for a conversation failed in an unexpected way.")
_event("warning", "live_recording_lost", "The transcript of a session was not stored.", "cause")

# Limits of tenants.
_event(
    "warning",
    "tenants_unavailable",
    "The tenants' settings in the database cannot be read; those known so far apply.",
    "cause",
)
_event("info", "limits_shared", "Ingress replicas share their limits in Redis.", "replicas")
_event(
    "warning",
    "limits_not_shared",
    "Redis does not answer: limits hold, but replicas cannot tell each other what is used.",
    "cause",
)
_event("warning", "limits_not_read", "What was used today cannot be read; tried again.", "cause")

# Uploads.
_event("warning", "upload_refused", "The scanner refused a file.")
_event("error", "scan_failed", "A file could not be scanned, and was not accepted.", "cause")

# Jobs.
_event("info", "job_submitted", "A recording waits for a worker.", "bytes")
_event("info", "job_claimed", "A worker took the job.", "attempt")
_event("info", "job_released", "A worker that stops returned the job to the queue.")
_event("warning", "job_lease_lost", "Another worker has the job.")
_event("warning", "job_retried", "The job will be tried again.", "code", "delay_s")
_event("error", "job_failed", "The job failed in an unexpected way.")
_event("info", "job_ended", "The job ended.", "state", "code", "run_s")
_event("warning", "window_retried", "The engine failed on a piece of a recording; tried again.")
_event("warning", "claim_failed", "The queue of jobs cannot be read.", "code")
_event("warning", "storage_failed", "The store is unavailable; tried again.", "code", "delay_s")
_event("warning", "file_exposed", "Others may read a file of the storage.", "path", "cause")
_event("warning", "not_indexed", "A result cannot be read; a search does not find it.", "code")
_event("warning", "sweep_failed", "Old data cannot be deleted now; tried again.", "code")

# Webhooks.
_event("warning", "webhooks_unavailable", "Waiting webhooks cannot be read.", "code")
_event("warning", "webhook_failed", "A call was not accepted.", "webhook", "cause", "attempt")
_event("warning", "webhook_outcome_lost", "A call's outcome was not stored.", "webhook", "code")
