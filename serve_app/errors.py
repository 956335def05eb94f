"""Every error that a client can see: its stable code, its HTTP status, its WebSocket close code.

A code without a close code leaves the session open. Raise `ClientError` anywhere; the routes and
sockets render it. Messages start in lower case, unless with a name, and have no full stop at the
end: what was wrong, then what is allowed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError


class Code(NamedTuple):
    status: int
    """HTTP status where the error answers a request."""
    close: int | None
    """WebSocket close code where the error ends a session, else None."""
    meaning: str


CODES: dict[str, Code] = {
    # What a client sent.
    "invalid_json": Code(400, None, "The message is not a JSON object."),
    "unknown_type": Code(400, None, "The message has an unknown `type`."),
    "invalid_message": Code(400, None, "A field is missing, unknown, or has the wrong type."),
    "invalid_base64": Code(400, None, "`data` is not base64."),
    "odd_byte_count": Code(400, None, "The audio ends in the middle of a sample."),
    "missing_sequence": Code(400, None, "An `audio_chunk` has no `sequence`."),
    "wrong_sequence": Code(400, None, "`sequence` is not the last one plus one."),
    "chunk_too_large": Code(413, None, "The message contains too much audio."),
    "start_not_first": Code(409, None, "`start` came after audio or for a second time."),
    "audio_before_start": Code(409, None, "Audio came after a `start` that was refused."),
    "audio_after_stop": Code(409, None, "Audio came after `stop`."),
    "unsupported_sample_rate": Code(400, None, "The sample rate is not from 8000 to 48000 Hz."),
    "unsupported_encoding": Code(400, None, "The encoding is not supported."),
    "unsupported_channels": Code(400, None, "The audio must have one or two channels."),
    "unsupported_language": Code(400, None, "The engine does not support the language."),
    "unsupported_option": Code(400, None, "The engine does not support an option."),
    "too_many_hotwords": Code(400, None, "Too many hotwords for one session."),
    "grammar_too_large": Code(413, None, "The grammar is too large."),
    # How a session went.
    "idle_timeout": Code(408, 1008, "The client sent no message for too long."),
    "silence_timeout": Code(408, 1008, "The audio had no speech for too long."),
    "session_too_long": Code(413, 1008, "The session reached its maximum length."),
    "audio_overrun": Code(429, 1008, "The client sent audio too far ahead of recognition."),
    "too_many_messages": Code(429, 1008, "The client sent messages too fast."),
    "client_too_slow": Code(408, 1008, "The client did not read the server's messages."),
    "server_restarting": Code(503, 1012, "This server process is stopping; connect again."),
    "too_many_sessions": Code(503, 1013, "Too many live sessions; see Retry-After."),
    "resume_refused": Code(400, None, "The resume token is invalid or has expired."),
    "session_resumed": Code(409, 1008, "Another connection has continued this session."),
    "overloaded": Code(503, 1013, "The server has no capacity left; see Retry-After."),
    # What an engine did.
    "utterance_failed": Code(500, None, "The engine could not recognise an utterance."),
    "engine_unavailable": Code(
        503, None, "No replica recognises speech now; the audio is kept for when one does."
    ),
    "engine_timeout": Code(504, 1011, "The engine did not finish in time."),
    # REST.
    "not_found": Code(404, None, "There is nothing at this path."),
    "method_not_allowed": Code(405, None, "The path does not support this method."),
    "upgrade_required": Code(426, None, "The path accepts only WebSocket connections."),
    "invalid_request": Code(400, None, "A parameter is missing, unknown, or has a wrong value."),
    "head_unavailable": Code(503, None, "Ray's head is away; live sessions are not affected."),
    "not_ready": Code(503, None, "The server is still starting; see Retry-After."),
    "too_many_recordings": Code(503, None, "Too many recordings in progress; see Retry-After."),
    "upload_refused": Code(422, None, "The server's scanner refuses the file."),
    "scan_failed": Code(503, None, "The file could not be scanned; see Retry-After."),
    "upload_too_large": Code(413, None, "The recording is larger than allowed."),
    "unreadable_audio": Code(400, None, "The body is not audio in a supported format."),
    "recording_too_long": Code(413, None, "The recording is longer than allowed."),
    "too_many_channels": Code(400, None, "The recording has more than eight channels."),
    "decode_timeout": Code(422, None, "The recording takes too long to decode."),
    # Conversations and the OpenAI surface.
    "missing_required_parameter": Code(400, None, "A required field is missing."),
    "unsupported_content": Code(400, None, "This kind of content is not supported."),
    "invalid_value": Code(400, None, "A field has a value that is not allowed."),
    "unknown_event": Code(400, None, "The event is not part of vLLM's realtime protocol."),
    "invalid_audio": Code(400, None, "The audio cannot be read."),
    "processing_error": Code(500, None, "An utterance failed (vLLM's code)."),
    "unknown_voice": Code(400, None, "There is no such voice; GET /v1/audio/voices lists them."),
    "unknown_style": Code(400, None, "No voice is configured for this style."),
    "text_too_long": Code(400, None, "Too much text for one call or item."),
    "too_many_items": Code(400, None, "Too many items or tools for one conversation."),
    "item_not_found": Code(404, None, "There is no item with this id."),
    "item_create_duplicate_item_id": Code(400, None, "An item with this id already exists."),
    "input_audio_buffer_commit_empty": Code(400, None, "A commit needs at least 100 ms of audio."),
    "conversation_already_has_active_response": Code(409, None, "A response is in progress."),
    "response_cancel_not_active": Code(400, None, "There is no response to cancel."),
    "conversation_busy": Code(409, None, "The previous audio is still being recognised."),
    "understanding_unavailable": Code(400, None, "The engine cannot answer questions about audio."),
    "translation_unavailable": Code(400, None, "No engine supports translation."),
    "model_not_found": Code(404, None, "There is no such model; GET /v1/models lists them."),
    "client_certificate_required": Code(403, None, "The server asks for a client's certificate."),
    "address_not_allowed": Code(403, None, "The server does not serve the client's address."),
    "too_many_connections": Code(
        429, None, "Too many connections from the client's address; see Retry-After."
    ),
    "origin_not_allowed": Code(
        403, 1008, "A page of another origin, without a key; see `browser.origins`."
    ),
    "host_not_allowed": Code(
        403, 1008, "`Host` is not a known name of this server; see `browser.hosts`."
    ),
    "missing_api_key": Code(401, 1008, "The server needs a key, and there is none."),
    "invalid_api_key": Code(
        401, 1008, "The key is not valid, has expired, was revoked, or stands where none may."
    ),
    "auth_unavailable": Code(
        503, 1013, "Tokens cannot be checked yet: the identity provider's keys are not known."
    ),
    "missing_scope": Code(403, 1008, "The key may not be used for this; the message says why."),
    "too_many_conversations": Code(503, 1013, "Too many conversations; see Retry-After."),
    "too_many_requests": Code(429, None, "Too many requests in progress; see Retry-After."),
    "rate_limit_exceeded": Code(
        429, 1008, "Too many requests, or too much open, for a tenant or key; see Retry-After."
    ),
    "quota_exceeded": Code(
        429, 1008, "A tenant or key has used what it may use in a day, or may store."
    ),
    "message_too_large": Code(413, None, "The body or message is larger than allowed."),
    "reply_failed": Code(502, None, "The chat engine could not reply."),
    "speech_failed": Code(502, None, "The speaker engine could not speak."),
    # Jobs.
    "key_not_found": Code(404, None, "There is no key with this id."),
    "keys_not_managed": Code(
        409, None, "The server keeps no keys in its database; see `auth.mode`."
    ),
    "job_not_found": Code(404, None, "There is no such job."),
    "upload_not_found": Code(404, None, "There is no such upload (any more)."),
    "upload_offset_conflict": Code(409, None, "`Upload-Offset` is not how far the upload is."),
    "too_many_uploads": Code(429, None, "Too many unfinished uploads, or parts of one."),
    "tus_version": Code(412, None, "`Tus-Resumable` is missing, or another version of tus."),
    "if_match_missing": Code(428, None, "A correction needs `If-Match`."),
    "revision_conflict": Code(
        412, None, "The result was corrected meanwhile; read it and try again."
    ),
    "revision_not_found": Code(404, None, "There is no such revision (any more)."),
    "edit_unfit": Code(400, None, "An edit does not fit the result; nothing was changed."),
    "playback_not_ready": Code(
        409, None, "There is no playback copy: the recording is not decoded yet, or never was."
    ),
    "job_not_completed": Code(409, None, "The job failed or was cancelled, so it has no result."),
    "idempotency_conflict": Code(
        409, None, "The idempotency key was used for a different request."
    ),
    "unsupported_media": Code(400, None, "The file type is not supported."),
    "unsupported_body": Code(415, None, "The body is not multipart/form-data."),
    "empty_upload": Code(400, None, "The form's file is missing or empty."),
    "range_not_satisfiable": Code(416, None, "The range is outside the recording."),
    "unknown_format": Code(400, None, "The export format is not supported."),
    "too_many_jobs": Code(429, None, "Too many jobs are waiting; see Retry-After."),
    "storage_unavailable": Code(
        503, None, "Database or object store unavailable; see Retry-After."
    ),
    "storage_full": Code(507, None, "There is no space left for recordings."),
    "missing_extra": Code(501, None, "The feature needs a package that is not installed."),
    "storage_damaged": Code(500, None, "Stored data is damaged."),
    "storage_key_missing": Code(
        500,
        None,
        "The key that sealed the data is not configured; the message has its id.",
    ),
    "worker_lost_twice": Code(500, None, "The job crashed two workers at the same step."),
    "session_lost": Code(500, None, "A live session's ingress replica was lost."),
    "not_while_running": Code(400, None, "The setting cannot change while the server runs."),
    "webhook_refused": Code(400, None, "A webhook must be a public http(s) URL."),
    "request_quarantined": Code(422, None, "The request crashed the engine twice."),
    "internal_error": Code(500, 1011, "Internal error; see the server log."),
}


def field(location: Sequence[int | str], value: object, missing: bool) -> str:
    """A field's path, as `tools.0.name`, from where pydantic found fault with `value`.

    Names of pydantic's own, as those of a union's members, are not the client's and left out; the
    last may be of a field that is `missing`.
    """
    path = []
    for at, part in enumerate(location):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not (missing and at == len(location) - 1):
            continue
        path.append(str(part)[:64])
    return ".".join(path)


def reason(fault: Any) -> str:
    """The text of an error of pydantic: what is allowed."""
    if fault["type"] == "extra_forbidden":
        return "there is no such field"
    if (
        fault["type"] in ("model_attributes_type", "model_type", "dict_type")
        and not fault["loc"][1:]
    ):
        return "the body must be a JSON object, sent with Content-Type: application/json"
    message: str = fault["msg"]
    return message.removeprefix("Value error, ")


TYPES = {401: "authentication_error", 403: "permission_error"}


class ClientError(Exception):
    """An error for the client: what was wrong and what is allowed."""

    def __init__(
        self,
        code: str,
        message: str,
        retry_after_s: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.param = param
        """The wrong field, such as `tools.0.name`."""
        self.headers: dict[str, str] = {}
        """More of an answer with it."""

    @property
    def status(self) -> int:
        return CODES[self.code].status

    @property
    def close(self) -> int | None:
        return CODES[self.code].close

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        other = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, other)
        shown = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": shown}


def invalid(
    error: ValidationError, value: object, code: str = "invalid_request", within: str = ""
) -> ClientError:
    """The first error in `value`, a message or a form; `within` is its own path."""
    first = error.errors(include_url=False, include_input=False)[0]
    found = field(first["loc"], value, first["type"] == "missing")
    param = ".".join(part for part in (within, found) if part)
    message = f"{param}: {reason(first)}" if param else reason(first)
    return ClientError(code, message, param=param or None)


def server_restarting() -> ClientError:
    """A refusal during a drain; another server, or this one after its start, can be asked at
    once."""
    return ClientError("server_restarting", "this server is stopping; connect again", 1)


def key_revoked() -> ClientError:
    """Ends what is open with a key."""
    return ClientError(
        "invalid_api_key", "the key was revoked or has expired: connect with another"
    )


class ProtocolViolation(Exception):
    """An event that is impossible in this state."""
