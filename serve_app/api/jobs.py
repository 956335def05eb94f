"""`/v1/jobs` and `/v1/webhooks`: recordings submitted, watched, read, exported and deleted."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from serve_app.api.job_answers import (
    deletion_of,
    export_of,
    original_of,
    peaks_answer,
    playback_answer,
    result_of,
)
from serve_app.api.job_events import job_events
from serve_app.api.job_feed import JobFeed
from serve_app.api.job_search import searched
from serve_app.api.streamed import EVENT_STREAM, Streamed, begun
from serve_app.api.submission import BODY, Submission
from serve_app.identity.principal import Caller
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.queue import Filter
from serve_app.jobs.search_words import MOST_CHARS
from serve_app.security.concurrency import ConcurrencyLimit

Id = Annotated[str, Path(alias="id", max_length=80)]
Original = Annotated[bool, Query(description="The recording as it was submitted.")]
Revision = Annotated[
    int | None,
    Query(ge=0, le=1_000_000, description="Default: the newest; 0: as it was recognised."),
]
Searched = Annotated[
    str,
    Query(
        max_length=MOST_CHARS,
        description="Words to find: all of them; in quotes, one after the other; the last may be "
        "the beginning of a word.",
    ),
]
PageSize = Annotated[int, Query(ge=1, le=100)]


class JobRoutes:
    """Each method is a route."""

    def __init__(
        self,
        submission: Submission,
        retry_after_s: Callable[[], int],
        is_draining: Callable[[], bool],
        feed: JobFeed,
    ) -> None:
        self._feed = feed
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
        routes.get("/events")(self.all_events)
        routes.get("/{id}")(self.status)
        routes.get("/{id}/events")(self.events)
        routes.get("/{id}/result")(self.results)
        routes.get("/{id}/results")(self.results)
        routes.get("/{id}/export/{form}")(self.exported)
        routes.get("/{id}/audio")(self.audio)
        routes.get("/{id}/peaks")(self.peaks)
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
        q: Searched = "",
    ) -> dict[str, Any]:
        """The newest first; `after` is the last id of the previous page. With `q`, those whose
        name or transcript has these words; `searched` says whether transcripts were."""
        if q.strip():
            return await searched(self._submission, caller.tenant, q, after, limit)
        wanted = Filter(tuple(it.value for it in state or ()), None, after, limit)
        found, more = await self._jobs.queue.find(caller.tenant, wanted)
        views = await self._submission.views(*found)
        return {"object": "list", "data": views, "has_more": more}

    async def all_events(self, caller: Caller) -> Response:
        """Server-sent events for all jobs of the tenant: `snapshot` with the newest 100, then
        `job` with each that has changed, and `deleted`. It does not end by itself."""
        return Streamed(await begun(self._watched_all(caller.tenant)), EVENT_STREAM)

    async def status(self, caller: Caller, id_: Id) -> dict[str, Any]:
        """State, progress, step, position in the queue, and estimated end."""
        (view,) = await self._submission.views(await self._submission.get(caller, id_))
        return view

    async def events(self, caller: Caller, id_: Id) -> Response:
        """Server-sent events: `progress`, `partial` for every window, and the job's last state."""
        job = await self._submission.get(caller, id_)
        return Streamed(await begun(self._watched(job)), EVENT_STREAM)

    async def results(self, caller: Caller, id_: Id, revision: Revision = None) -> Response:
        """The result as it was last corrected; 202 with the status while there is none."""
        job = await self._submission.get(caller, id_)
        return await result_of(self._submission, job, revision)

    async def exported(
        self, caller: Caller, id_: Id, form: str, revision: Revision = None
    ) -> Response:
        """The result as txt, srt, vtt, json, tsv or docx."""
        job = await self._submission.get(caller, id_)
        return await export_of(self._submission, job, form, revision)

    async def audio(
        self, caller: Caller, id_: Id, request: Request, original: Original = False
    ) -> Response:
        """The playback copy: WAV, mono, 16 kHz, so that positions are exact in every player. Range
        requests are supported. There is none before the recording is decoded (409)."""
        job = await self._submission.get(caller, id_)
        answer = original_of if original else playback_answer
        return await answer(self._submission, job, request.headers.get("range"))

    async def peaks(self, caller: Caller, id_: Id) -> Response:
        """The loudest sample of each tenth of a second, 0 to 127, for drawing the recording; of a
        long one fewer, at most 20,000."""
        return await peaks_answer(self._submission, await self._submission.get(caller, id_))

    async def delete(self, caller: Caller, id_: Id) -> Response:
        """An unfinished job is cancelled (202, then `cancelled`) and its audio deleted; a finished
        one is deleted with all its data (204)."""
        return await deletion_of(self._submission, await self._submission.get(caller, id_))

    async def _watched_all(self, tenant: str) -> AsyncGenerator[bytes, None]:
        with self._watchers.slot(tenant):
            async with aclosing(self._feed.events(tenant)) as events:
                async for piece in events:
                    yield piece

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
