"""Paths that clients of older servers call. `/api/upload`, `/api/status` and `/api/results` keep
the older shapes; the others are thin aliases of what is elsewhere."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from serve_app.api import jobs as routes_of_jobs
from serve_app.api.jobs import Id, Submission, deletion_of, export_of
from serve_app.api.legacy import views
from serve_app.api.sockets.live_socket import PATH as STREAM
from serve_app.jobs.job import JobState
from serve_app.jobs.live_recording import LiveRecordings
from serve_app.jobs.queue import Filter
from serve_app.security.principal import Caller, Principal


class LiveAsked(BaseModel):
    """What a kept live session may be told beforehand."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None


def router(submission: Submission, live_recordings: LiveRecordings) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["older paths"])

    async def listed(
        caller: Principal, kind: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        found, _ = await submission.jobs.queue.find(caller.tenant, Filter((), kind, after, limit))
        return await submission.shown(*found)

    @routes.post("/upload", status_code=202, openapi_extra=routes_of_jobs.BODY)
    async def upload(
        caller: Caller,
        request: Request,
        num_speakers: Annotated[int | None, Query(ge=1, le=20)] = None,
    ) -> JSONResponse:
        """Hand in a recording (multipart, field `file`)."""
        given = {"speakers": num_speakers} if num_speakers else None
        job, _ = await submission.take(caller, request, given)
        return JSONResponse(views.accepted(job), 202)

    @routes.get("/status/{id}")
    async def status(caller: Caller, id_: Id) -> dict[str, Any]:
        """`status`, `progress` from 0 to 100, and the step as a sentence."""
        return views.status(await submission.get(caller, id_))

    @routes.get("/results/{id}")
    async def results(caller: Caller, id_: Id) -> Response:
        """The result in seconds; 202 with the status while there is none."""
        job = await submission.get(caller, id_)
        if not job.ended:
            return JSONResponse(views.status(job), 202, {"Retry-After": "1"})
        return JSONResponse(views.results(await submission.jobs.result(job)))

    @routes.get("/jobs")
    async def list_jobs(
        caller: Caller, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> dict[str, Any]:
        """`GET /v1/jobs`."""
        return {"jobs": await listed(caller, "file", after, limit)}

    @routes.delete("/jobs/{id}")
    async def delete_job(caller: Caller, id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(submission, await submission.get(caller, id_))

    @routes.post("/transcribe/upload", status_code=202, openapi_extra=routes_of_jobs.BODY)
    async def transcribe_upload(caller: Caller, request: Request) -> JSONResponse:
        """`POST /v1/jobs`."""
        job, _ = await submission.take(caller, request)
        (shown,) = await submission.shown(job)
        return JSONResponse(shown, 202)

    @routes.post("/transcribe/start", status_code=201)
    async def start(caller: Caller, asked: LiveAsked | None = None) -> dict[str, Any]:
        """A live session that is kept: stream audio to `websocket`, then read the transcription."""
        options = submission.checked(asked.model_dump() if asked else {})
        job = await live_recordings.open(caller, options)
        return {"id": job.id, "state": job.state, "websocket": f"{STREAM}?transcription={job.id}"}

    @routes.get("/transcriptions")
    async def transcriptions(
        caller: Caller, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> dict[str, Any]:
        """Jobs and kept live sessions, the newest first."""
        return {"transcriptions": await listed(caller, None, after, limit)}

    @routes.get("/transcription/{id}")
    async def transcription(caller: Caller, id_: Id) -> dict[str, Any]:
        """Its state and, once it is completed, its result."""
        job = await submission.get(caller, id_)
        (shown,) = await submission.shown(job)
        result = await submission.jobs.result(job) if job.state is JobState.COMPLETED else None
        return {**shown, "result": result.model_dump() if result else None}

    @routes.delete("/transcription/{id}")
    async def delete_transcription(caller: Caller, id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(submission, await submission.get(caller, id_))

    @routes.get("/export/{id}/{form}")
    async def export(caller: Caller, id_: Id, form: str) -> Response:
        """`GET /v1/jobs/{id}/export/{format}`."""
        return await export_of(submission, await submission.get(caller, id_), form)

    return routes
