"""`/v1/jobs`: recordings handed in, watched, read, exported and deleted."""

import time
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Literal
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from deployments.interfaces import SpeechOptions
from serve_app.api.backend import Backend
from serve_app.api.multipart import FileForm
from serve_app.api.ranges import Range, range_of
from serve_app.api.streamed import EVENT_STREAM, Streamed, begun, event
from serve_app.config import Limits
from serve_app.errors import ClientError, invalid
from serve_app.jobs.export import FORMS, export
from serve_app.jobs.job import Job, JobOptions, JobState, view
from serve_app.jobs.partials import Partials
from serve_app.jobs.queue import Filter
from serve_app.jobs.submission import Jobs, Particulars, Upload
from serve_app.jobs.webhooks.delivery import check_webhook
from serve_app.live.options import check_options
from serve_app.security.bodies import declared_bytes
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.principal import Caller, Principal

Id = Annotated[str, Path(alias="id", max_length=80)]

WATCH_S = 0.5
KEEP_ALIVE_S = 15.0
KEY_CHARS = 255
MANY = ("hotwords", "hotwords[]")

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **JobOptions.model_json_schema()["properties"],
                        "idempotency_key": {"type": "string"},
                    },
                }
            }
        },
    }
}


class Submission:
    """Takes recordings in for every dialect that hands in jobs."""

    def __init__(
        self,
        backend: Backend,
        jobs: Jobs,
        limits: Limits,
        retry_after_s: Callable[[], int],
    ) -> None:
        self.jobs = jobs
        self._backend = backend
        self._limits = limits
        self._places = ConcurrencyLimit(
            jobs.config.max_uploads, "too_many_requests", "uploads", retry_after_s
        )

    async def take(
        self, caller: Principal, request: Request, given: dict[str, Any] | None = None
    ) -> tuple[Job, bool]:
        """The job of a request's form, and whether it is new. `given` are options from elsewhere.

        Raises `ClientError`.
        """
        form = FileForm(request)
        expected = declared_bytes(request.headers)

        def particulars() -> Particulars:
            fields = _gathered(form.fields)
            in_form = fields.pop("idempotency_key", None)
            key = _key(request.headers.get("idempotency-key") or in_form)
            return Particulars(form.filename, self.checked(fields | (given or {})), key)

        with self._places.slot():
            return await self.jobs.submit(Upload(caller.tenant, form.file(), expected, particulars))

    def checked(self, fields: dict[str, Any]) -> JobOptions:
        """Raises `ClientError` for options that there are not, or that the engine cannot do."""
        try:
            options = JobOptions.model_validate(fields)
        except ValidationError as error:
            raise invalid(error, fields) from error
        asked = SpeechOptions(options.language, False, tuple(options.hotwords), options.grammar)
        check_options(asked, self._backend.engines.transcriber, self._limits)
        if options.prompt and not self._backend.understands:
            engine = self._backend.engines.transcriber.name
            reason = f"the engine {engine} cannot answer questions on audio"
            raise ClientError("understanding_unavailable", reason, param="prompt")
        if options.webhook:
            check_webhook(options.webhook, self.jobs.config.webhook)
        return options

    async def shown(self, *jobs: Job) -> list[dict[str, Any]]:
        standings = await self.jobs.queue.standings(jobs)
        now = time.time()
        return [view(job, standings.get(job.id), now) for job in jobs]

    async def get(self, caller: Principal, id_: str) -> Job:
        return await self.jobs.queue.get(caller.tenant, id_)


def router(submission: Submission, retry_after_s: Callable[[], int]) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    jobs = submission.jobs
    watchers = ConcurrencyLimit(
        jobs.config.max_watchers, "too_many_requests", "event streams", retry_after_s
    )

    @routes.post("", status_code=202, openapi_extra=BODY)
    async def submit(caller: Caller, request: Request) -> JSONResponse:
        """Hand in a recording (multipart, field `file`) and its options. An `Idempotency-Key`,
        header or field, gives the same job again."""
        job, is_new = await submission.take(caller, request)
        (shown,) = await submission.shown(job)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        return JSONResponse(shown, 202 if is_new or not job.ended else 200, headers)

    @routes.get("")
    async def list_jobs(
        caller: Caller,
        state: Annotated[list[JobState] | None, Query()] = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """The newest first; `after` is the last id of the page before."""
        wanted = Filter(tuple(it.value for it in state or ()), "file", after, limit)
        found, more = await jobs.queue.find(caller.tenant, wanted)
        shown = await submission.shown(*found)
        return {"object": "list", "data": shown, "has_more": more}

    @routes.get("/{id}")
    async def status(caller: Caller, id_: Id) -> dict[str, Any]:
        """State, progress, step; where it stands in the queue and when it may be done."""
        (shown,) = await submission.shown(await submission.get(caller, id_))
        return shown

    @routes.get("/{id}/events")
    async def events(caller: Caller, id_: Id) -> Response:
        """Server-sent events: `progress`, `partial` for every window, and the job's last state."""
        job = await submission.get(caller, id_)

        async def watched() -> AsyncGenerator[bytes, None]:
            with watchers.slot():
                async for piece in _watch(submission, job):
                    yield piece

        return Streamed(await begun(watched()), EVENT_STREAM)

    @routes.get("/{id}/results")
    async def results(caller: Caller, id_: Id) -> Response:
        """The result; 202 with the status while there is none."""
        return await result_of(submission, await submission.get(caller, id_))

    @routes.get("/{id}/export/{form}")
    async def exported(caller: Caller, id_: Id, form: str) -> Response:
        """The result as txt, srt, vtt, json, tsv or docx."""
        return await export_of(submission, await submission.get(caller, id_), form)

    @routes.get("/{id}/audio")
    async def audio(caller: Caller, id_: Id, request: Request) -> Response:
        """The recording as it was handed in; ranges are taken."""
        job = await submission.get(caller, id_)
        return await audio_of(submission, job, request.headers.get("range"))

    @routes.delete("/{id}")
    async def delete(caller: Caller, id_: Id) -> Response:
        """A job that goes on is cancelled (202, then `cancelled`), its audio deleted; one that has
        ended is forgotten with all that is kept of it (204)."""
        return await deletion_of(submission, await submission.get(caller, id_))

    return routes


def webhook_router(submission: Submission) -> APIRouter:
    routes = APIRouter(prefix="/v1/webhooks", tags=["jobs"])

    @routes.get("")
    async def deliveries(
        caller: Caller,
        state: Literal["waiting", "delivered", "dead"] | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """Webhooks and what became of them; `state=dead` lists those given up."""
        found = await submission.jobs.webhooks.listed(caller.tenant, state, limit)
        return {"object": "list", "data": [delivery.view() for delivery in found]}

    @routes.post("/{id}/retry", status_code=202)
    async def retry(caller: Caller, id_: Id) -> dict[str, Any]:
        """Try a dead one again."""
        return (await submission.jobs.webhooks.again(caller.tenant, id_)).view()

    return routes


async def result_of(submission: Submission, job: Job) -> Response:
    if not job.ended:
        (shown,) = await submission.shown(job)
        return JSONResponse(shown, 202, {"Retry-After": "1"})
    result = await submission.jobs.result(job)
    return JSONResponse({"id": job.id, "cached": job.cached, **result.model_dump()})


async def export_of(submission: Submission, job: Job, form: str) -> Response:
    if form not in FORMS:
        raise ClientError("unknown_format", f"exports are {', '.join(FORMS)}, not {form[:40]!r}")
    if not job.ended:
        return await result_of(submission, job)
    exported = export(form, await submission.jobs.result(job))
    name = job.filename.rsplit(".", 1)[0] or "transcript"
    return Response(
        exported.body, media_type=exported.media_type, headers=_attached(f"{name}.{form}")
    )


async def audio_of(submission: Submission, job: Job, asked: str | None) -> Response:
    stored = await submission.jobs.objects.open(job, "audio")
    if stored is None:
        raise ClientError("not_found", "the recording was deleted")
    range_ = range_of(asked, stored.size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(range_.end - range_.start),
        "X-Content-Type-Options": "nosniff",
        **_attached(job.filename),
    }
    if range_.partial:
        headers["Content-Range"] = _content_range(range_, stored.size)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for piece in stored.pieces(range_.start, range_.end):
            yield piece

    response = Streamed(pieces(), job.media_type)
    response.status_code = 206 if range_.partial else 200
    response.headers.update(headers)
    return response


async def deletion_of(submission: Submission, job: Job) -> Response:
    after = await submission.jobs.delete(job)
    if after is None:
        return Response(status_code=204)
    (shown,) = await submission.shown(after)
    return JSONResponse(shown, 200 if after.ended else 202)


async def _watch(submission: Submission, job: Job) -> AsyncGenerator[bytes, None]:
    """Until the job has ended, or is forgotten."""
    partials = Partials(submission.jobs.objects)
    told: dict[str, Any] = {}
    quiet = 0.0
    while True:
        (shown,) = await submission.shown(job)
        for partial in await partials.new(job):
            yield event({"type": "partial", **partial})
        if shown != told or job.ended:
            told, quiet = shown, 0.0
            yield event({"type": job.state.value if job.ended else "progress", "job": shown})
        if job.ended:
            return
        await anyio.sleep(WATCH_S)
        quiet += WATCH_S
        if quiet >= KEEP_ALIVE_S:
            quiet = 0.0
            yield b": still here\n\n"
        try:
            job = await submission.jobs.queue.get(job.tenant, job.id)
        except ClientError as error:
            yield event(error.body())
            if error.code == "job_not_found":
                return


def _gathered(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """A form's fields as options; an empty one is as if it were not there."""
    gathered: dict[str, Any] = {}
    for name, value in fields:
        if name in MANY:
            gathered.setdefault("hotwords", []).append(value)
        elif value != "":
            gathered[name] = value
    return gathered


def _key(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= KEY_CHARS and key.isprintable()):
        reason = f"an idempotency key has 1 to {KEY_CHARS} printable characters"
        raise ClientError("invalid_request", reason)
    return key


def _content_range(range_: Range, size: int) -> str:
    return f"bytes {range_.start}-{range_.end - 1}/{size}"


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
