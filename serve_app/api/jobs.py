"""`/v1/jobs` and `/v1/webhooks`: recordings submitted, watched, read, exported and deleted."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from serve_app.api.job_answers import audio_of, deletion_of, export_of, result_of
from serve_app.api.job_events import job_events
from serve_app.api.streamed import EVENT_STREAM, Streamed, begun
from serve_app.api.submission import BODY, Submission
from serve_app.identity.principal import Caller
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.queue import Filter
from serve_app.security.concurrency import ConcurrencyLimit

Id = Annotated[str, Path(alias="id", max_length=80)]
PageSize = Annotated[int, Query(ge=1, le=100)]


class JobRoutes:
    """Each method is a route."""

    def __init__(
        self,
        submission: Submission,
        retry_after_s: Callable[[], int],
        is_draining: Callable[[], bool],
    ) -> None:
        self._submission = submission
        self._is_draining = is_draining
        self._jobs = submission.jobs
        self._watchers = ConcurrencyLimit(
            self._jobs.config.max_watchers, "too_many_requests", "event streams", retry_after_s
        )

    def router(self) -> APIRouter:
        routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
        routes.post("", status_code=202, openapi_extra=BODY)(self.submit)
        routes.get("")(self.list_jobs)
        routes.get("/{id}")(self.status)
        routes.get("/{id}/events")(self.events)
        routes.get("/{id}/results")(self.results)
        routes.get("/{id}/export/{form}")(self.exported)
        routes.get("/{id}/audio")(self.audio)
        routes.delete("/{id}")(self.delete)
        return routes

    async def submit(self, caller: Caller, request: Request) -> JSONResponse:
        """Submit a recording (multipart, field `file`) and its options. The same
        `Idempotency-Key`, as header or field, gets the same job."""
        job, is_new = await self._submission.submit(caller, request)
        (view,) = await self._submission.views(job)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        return JSONResponse(view, 202 if is_new or not job.ended else 200, headers)

    async def list_jobs(
        self,
        caller: Caller,
        state: Annotated[list[JobState] | None, Query()] = None,
        after: str | None = None,
        limit: PageSize = 20,
    ) -> dict[str, Any]:
        """The newest first; `after` is the last id of the previous page."""
        wanted = Filter(tuple(it.value for it in state or ()), "file", after, limit)
        found, more = await self._jobs.queue.find(caller.tenant, wanted)
        views = await self._submission.views(*found)
        return {"object": "list", "data": views, "has_more": more}

    async def status(self, caller: Caller, id_: Id) -> dict[str, Any]:
        """State, progress, step, position in the queue, and estimated end."""
        (view,) = await self._submission.views(await self._submission.get(caller, id_))
        return view

    async def events(self, caller: Caller, id_: Id) -> Response:
        """Server-sent events: `progress`, `partial` for every window, and the job's last state."""
        job = await self._submission.get(caller, id_)
        return Streamed(await begun(self._watched(job)), EVENT_STREAM)

    async def results(self, caller: Caller, id_: Id) -> Response:
        """The result; 202 with the status while there is none."""
        return await result_of(self._submission, await self._submission.get(caller, id_))

    async def exported(self, caller: Caller, id_: Id, form: str) -> Response:
        """The result as txt, srt, vtt, json, tsv or docx."""
        return await export_of(self._submission, await self._submission.get(caller, id_), form)

    async def audio(self, caller: Caller, id_: Id, request: Request) -> Response:
        """The recording as it was submitted; range requests are supported."""
        job = await self._submission.get(caller, id_)
        return await audio_of(self._submission, job, request.headers.get("range"))

    async def delete(self, caller: Caller, id_: Id) -> Response:
        """An unfinished job is cancelled (202, then `cancelled`) and its audio deleted; a finished
        one is deleted with all its data (204)."""
        return await deletion_of(self._submission, await self._submission.get(caller, id_))

    async def _watched(self, job: Job) -> AsyncGenerator[bytes, None]:
        with self._watchers.slot(job.tenant):
            async for piece in job_events(self._submission, job, self._is_draining):
                yield piece


def webhook_router(submission: Submission) -> APIRouter:
    routes = APIRouter(prefix="/v1/webhooks", tags=["jobs"])

    @routes.get("")
    async def deliveries(
        caller: Caller,
        state: Literal["waiting", "delivered", "dead"] | None = None,
        limit: PageSize = 20,
    ) -> dict[str, Any]:
        """Webhooks and the states of their deliveries; `dead`: all attempts failed."""
        found = await submission.jobs.webhooks.listed(caller.tenant, state, limit)
        return {"object": "list", "data": [delivery.view() for delivery in found]}

    @routes.post("/{id}/retry", status_code=202)
    async def retry(caller: Caller, id_: Id) -> dict[str, Any]:
        """Try a dead delivery again."""
        return (await submission.jobs.webhooks.retry(caller.tenant, id_)).view()

    return routes
