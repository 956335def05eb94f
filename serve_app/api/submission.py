"""Jobs from the forms of requests: the recording, its options, the idempotency key."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from deployments.interfaces import SpeechOptions
from serve_app.admission.weights import Weights
from serve_app.api.backend import Backend
from serve_app.api.multipart import FileForm
from serve_app.api.uploads import form_body
from serve_app.config import Limits
from serve_app.errors import ClientError, invalid
from serve_app.identity.principal import Principal
from serve_app.jobs.job import Job, JobOptions, view
from serve_app.jobs.submission import Jobs, Particulars, Upload
from serve_app.jobs.webhooks.delivery import check_webhook
from serve_app.limits.limiter import Limiter
from serve_app.live.options import check_options
from serve_app.security.bodies import declared_bytes
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.usage.meter import Counted

MAX_KEY_CHARS = MAX_NAME_CHARS = 255
HOTWORDS = ("hotwords", "hotwords[]")

BODY = form_body(
    {
        **JobOptions.model_json_schema()["properties"],
        "idempotency_key": {"type": "string"},
    }
)


class Submission:
    """Accepts recordings for every route that creates jobs."""

    def __init__(
        self,
        backend: Backend,
        jobs: Jobs,
        limits: Limits,
        retry_after_s: Callable[[], int],
        admit: Callable[[str], None],
        limiter: Limiter,
        weights: Weights,
    ) -> None:
        self.jobs = jobs
        self._limiter = limiter
        self._backend = backend
        self._limits = limits
        self._uploads = ConcurrencyLimit(
            jobs.config.max_uploads, "too_many_requests", "uploads", retry_after_s, admit, weights
        )

    async def submit(
        self, caller: Principal, request: Request, options: dict[str, Any] | None = None
    ) -> tuple[Job, bool]:
        """The job of a request's form, and whether it is new. `options` override those of the form.

        Raises `ClientError`.
        """
        form = FileForm(request)

        def particulars() -> Particulars:
            fields = _options(form.fields)
            in_form = fields.pop("idempotency_key", None)
            key = _checked_key(request.headers.get("idempotency-key") or in_form)
            return Particulars(form.filename, self.checked(fields | (options or {})), key)

        self._limiter.check_quota(caller, Counted.AUDIO)
        expected, rooms = declared_bytes(request.headers), self._limiter.rooms(caller)
        upload = Upload(caller, form.file(), expected, particulars, rooms)
        with self._uploads.slot(caller.tenant):
            return await self.jobs.submit(upload)

    async def check_size(self, caller: Principal, size: int) -> None:
        """Raises `ClientError` if a recording of this size, in bytes, is not allowed now."""
        self._limiter.check_quota(caller, Counted.AUDIO)
        most = self.jobs.config.max_upload_bytes
        if size > most:
            reason = f"the recording is larger than the limit of {most} bytes"
            raise ClientError("upload_too_large", reason)
        self.jobs.objects.check_room(size)
        await self.jobs.queue.free(caller.tenant, self._limiter.rooms(caller), size)

    def receiving(self, caller: Principal) -> AbstractContextManager[None]:
        """A place among those who upload. Raises `ClientError`."""
        return self._uploads.slot(caller.tenant)

    async def submit_stored(
        self,
        caller: Principal,
        pieces: AsyncIterator[bytes],
        size: int,
        filename: str,
        options: JobOptions,
        idempotency_key: str,
    ) -> Job:
        """The job of a recording that is here already. Raises `ClientError`."""
        particulars = Particulars(filename[-MAX_NAME_CHARS:] or "upload", options, idempotency_key)
        rooms = self._limiter.rooms(caller)
        upload = Upload(caller, pieces, size, lambda: particulars, rooms)
        job, _ = await self.jobs.submit(upload)
        return job

    def checked(self, fields: dict[str, Any]) -> JobOptions:
        """Raises `ClientError` for options that are unknown or that the engine does not support."""
        try:
            options = JobOptions.model_validate(fields)
        except ValidationError as error:
            raise invalid(error, fields) from error
        transcriber = self._backend.engines.transcriber
        speech = SpeechOptions(options.language, False, tuple(options.hotwords), options.grammar)
        check_options(speech, transcriber, self._limits)
        if options.prompt and not self._backend.understands:
            reason = f"engine {transcriber.name} cannot answer questions about audio"
            raise ClientError("understanding_unavailable", reason, param="prompt")
        if options.webhook:
            check_webhook(options.webhook, self.jobs.config.webhook)
        return options

    async def views(self, *jobs: Job) -> list[dict[str, Any]]:
        """The jobs as answers show them, with their positions in the queue."""
        standings = await self.jobs.queue.standings(jobs)
        now = time.time()
        return [view(job, standings.get(job.id), now) for job in jobs]

    async def get(self, caller: Principal, id_: str) -> Job:
        return await self.jobs.queue.get(caller.tenant, id_)


def _options(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """A form's fields as options; an empty field counts as absent."""
    options: dict[str, Any] = {}
    for name, value in fields:
        if name in HOTWORDS:
            options.setdefault("hotwords", []).append(value)
        elif value != "":
            options[name] = value
    return options


def _checked_key(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isprintable()):
        reason = f"an idempotency key must have 1 to {MAX_KEY_CHARS} printable characters"
        raise ClientError("invalid_request", reason)
    return key
