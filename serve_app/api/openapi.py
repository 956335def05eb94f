"""The OpenAPI document: every status and content type, and errors in their one shape."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from deployments.encoding import MEDIA_TYPES
from serve_app.api.recordings import MEDIA_TYPES as SUBTITLES
from serve_app.identity.origins import KnownOrigins
from serve_app.identity.routes import access_to
from serve_app.jobs.export import FORMS
from serve_app.security.cors import Cors
from serve_app.security.headers import SecurityHeaders

JSON, TEXT, EVENTS = "application/json", "text/plain", "text/event-stream"
Contents = dict[int, tuple[str, ...]]

JOB: Contents = {200: (JSON,), 202: (JSON,)}
DELETION: Contents = {200: (JSON,), 202: (JSON,), 204: ()}
EXPORT: Contents = {200: tuple(kind.split(";")[0] for kind, _ in FORMS.values()), 202: (JSON,)}

ANSWERS: dict[tuple[str, str], Contents] = {
    ("post", "/v1/transcribe"): {200: (JSON, *SUBTITLES.values())},
    ("post", "/v1/audio/transcriptions"): {200: (JSON, TEXT, EVENTS)},
    ("post", "/v1/audio/translations"): {},
    ("post", "/v1/audio/speech"): {200: (*MEDIA_TYPES.values(), EVENTS)},
    ("post", "/v1/chat/completions"): {200: (JSON, EVENTS)},
    ("post", "/v1/jobs"): JOB,
    ("delete", "/v1/jobs/{id}"): DELETION,
    ("get", "/v1/jobs/{id}/events"): {200: (EVENTS,)},
    ("get", "/v1/jobs/{id}/results"): JOB,
    ("get", "/v1/jobs/{id}/export/{form}"): EXPORT,
    ("get", "/v1/jobs/{id}/audio"): {200: ("*/*",), 206: ("*/*",)},
    ("get", "/api/results/{id}"): JOB,
    ("delete", "/api/jobs/{id}"): DELETION,
    ("delete", "/api/transcription/{id}"): DELETION,
    ("get", "/api/export/{id}/{form}"): EXPORT,
    ("post", "/transcribe/stream"): {200: (EVENTS,)},
    ("get", "/v1/usage"): {200: (JSON, "text/csv")},
}
"""Content types that FastAPI does not know."""

UPLOAD = {400, 408, 413, 415, 422, 429, 503, 507}
RECORDING = {400, 408, 413, 415, 422, 429, 500, 503, 504}
REQUEST = {422, 429, 502, 504}
REFUSALS: dict[tuple[str, str], set[int]] = {
    ("post", "/v1/transcribe"): RECORDING,
    ("post", "/transcribe/stream"): RECORDING,
    ("post", "/v1/audio/transcriptions"): RECORDING,
    ("post", "/v1/audio/translations"): {400},
    ("post", "/v1/audio/speech"): REQUEST,
    ("post", "/v1/chat/completions"): REQUEST,
    ("post", "/v1/jobs"): UPLOAD | {409},
    ("post", "/api/upload"): UPLOAD | {409},
    ("post", "/api/transcribe/upload"): UPLOAD | {409},
    ("get", "/v1/jobs"): {404},
    ("get", "/api/jobs"): {404},
    ("get", "/api/transcriptions"): {404},
    ("get", "/v1/jobs/{id}/events"): {429},
    ("get", "/v1/jobs/{id}/result"): {409, 500},
    ("patch", "/v1/jobs/{id}/result"): {409, 412, 428, 500},
    ("get", "/v1/jobs/{id}/peaks"): {409},
    ("post", "/v1/uploads"): {412, 413, 429, 507},
    ("patch", "/v1/uploads/{id}"): UPLOAD | {409, 412, 429},
    ("get", "/v1/jobs/{id}/results"): {409, 500},
    ("get", "/v1/jobs/{id}/export/{form}"): {409, 500, 501},
    ("get", "/v1/jobs/{id}/audio"): {416, 500},
    ("get", "/api/results/{id}"): {409, 500},
    ("get", "/api/export/{id}/{form}"): {409, 500, 501},
    ("post", "/v1/webhooks/{id}/retry"): {409},
    ("get", "/v1/keys"): {409},
    ("post", "/v1/keys"): {409},
    ("delete", "/v1/keys/{id}"): {409},
}
"""In addition to the statuses of every route."""

EVERYWHERE = {401, 403, 500, 503}
WITH_BODY = {400, 408, 413}

ERROR_TYPES = [
    "authentication_error",
    "permission_error",
    "invalid_request_error",
    "server_error",
]
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ERROR_TYPES},
                "param": {"type": ["string", "null"], "description": "The wrong field."},
                "code": {"type": "string", "description": "Stable; docs/protocol.md lists them."},
            },
        }
    },
}


class Api(FastAPI):
    """FastAPI with what browsers need on every answer, and an OpenAPI document that has the errors
    and the answers that are not JSON."""

    def __init__(
        self, known: KnownOrigins, hsts_s: int, needs_keys: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._needs_keys = needs_keys
        self._known = known
        self._hsts_s = hsts_s

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette answers internal errors outside of all middleware that is added."""
        return SecurityHeaders(Cors(super().build_middleware_stack(), self._known), self._hsts_s)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            describe(super().openapi())
            if self._needs_keys:
                describe_keys(super().openapi())
        return super().openapi()


def describe(document: dict[str, Any]) -> None:
    """Complete FastAPI's document, in place."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    for method, path, operation in _operations(document):
        operation["responses"] = _answers(method, path, operation) | _refusals(
            method, path, operation
        )


def describe_keys(document: dict[str, Any]) -> None:
    """Where a key is needed, and with which scope, in place."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for _, path, operation in _operations(document):
        access = access_to(path)
        if not access.public:
            scopes = sorted(access.scopes)
            operation["security"] = [{"key": [scope]} for scope in scopes] or [{"key": []}]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _answers(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's answers, completed."""
    known = operation["responses"]
    known.pop("422", None)
    contents = ANSWERS.get((method, path))
    if contents is None:
        return dict(known)
    return {str(status): _answer(status, types, known) for status, types in contents.items()}


def _answer(status: int, types: tuple[str, ...], known: dict[str, Any]) -> dict[str, Any]:
    schema = known.get(str(status), {}).get("content", {}).get(JSON, {})
    content = {type_: schema if type_ == JSON else {} for type_ in types}
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    return answer | ({"content": content} if content else {})


def _refusals(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    statuses = EVERYWHERE | REFUSALS.get((method, path), set())
    if "requestBody" in operation:
        statuses = statuses | WITH_BODY
    if operation.get("parameters"):
        statuses = statuses | {400}
    if "{" in path:
        statuses = statuses | {404}
    return {str(status): _refusal(status) for status in sorted(statuses)}


def _refusal(status: int) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
