"""Paths of older servers. `/api/upload`, `/api/status` and `/api/results` have the older shapes;
the others are aliases of `/v1/jobs`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from serve_app.api.job_answers import deletion_of, export_of
from serve_app.api.jobs import Id, PageSize
from serve_app.api.legacy import views
from serve_app.api.sockets.live_socket import PATH as STREAM
from serve_app.api.submission import BODY, Submission
from serve_app.identity.principal import Caller, Principal
from serve_app.jobs.job import JobState
from serve_app.jobs.live_recording import LiveRecordings
from serve_app.jobs.queue import Filter


class LiveAsked(BaseModel):
    """Options of a live recording."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None


class LegacyRoutes:
    """Each method is a route."""

    def __init__(self, submission: Submission, live_recordings: LiveRecordings) -> None:
        self._submission = submission
        self._live_recordings = live_recordings

    def router(self) -> APIRouter:
        routes = APIRouter(prefix="/api", tags=["older paths"])
        routes.post("/upload", status_code=202, openapi_extra=BODY)(self.upload)
        routes.get("/status/{id}")(self.status)
        routes.get("/results/{id}")(self.results)
        routes.get("/jobs")(self.list_jobs)
        routes.delete("/jobs/{id}")(self.delete_job)
        routes.post("/transcribe/upload", status_code=202, openapi_extra=BODY)(
            self.transcribe_upload
        )
        routes.post("/transcribe/start", status_code=201)(self.start)
        routes.get("/transcriptions")(self.transcriptions)
        routes.get("/transcription/{id}")(self.transcription)
        routes.delete("/transcription/{id}")(self.delete_transcription)
        routes.get("/export/{id}/{form}")(self.export)
        return routes

    async def upload(
        self,
        caller: Caller,
        request: Request,
        num_speakers: Annotated[int | None, Query(ge=1, le=20)] = None,
    ) -> JSONResponse:
        """Submit a recording (multipart, field `file`)."""
        options = {"speakers": num_speakers} if num_speakers else None
        job, _ = await self._submission.submit(caller, request, options)
        return JSONResponse(views.accepted(job), 202)

    async def status(self, caller: Caller, id_: Id) -> dict[str, Any]:
        """`status`, `progress` from 0 to 100, and the step as a sentence."""
        return views.status(await self._submission.get(caller, id_))

    async def results(self, caller: Caller, id_: Id) -> Response:
        """The result in seconds; 202 with the status while there is none."""
        job = await self._submission.get(caller, id_)
        if not job.ended:
            return JSONResponse(views.status(job), 202, {"Retry-After": "1"})
        return JSONResponse(views.results(await self._submission.jobs.revisions.result(job)))

    async def list_jobs(
        self, caller: Caller, after: str | None = None, limit: PageSize = 20
    ) -> dict[str, Any]:
        """`GET /v1/jobs`."""
        return {"jobs": await self._listed(caller, "file", after, limit)}

    async def delete_job(self, caller: Caller, id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(self._submission, await self._submission.get(caller, id_))

    async def transcribe_upload(self, caller: Caller, request: Request) -> JSONResponse:
        """`POST /v1/jobs`."""
        job, _ = await self._submission.submit(caller, request)
        (view,) = await self._submission.views(job)
        return JSONResponse(view, 202)

    async def start(self, caller: Caller, asked: LiveAsked | None = None) -> dict[str, Any]:
        """Start a live recording: stream audio to `websocket`, then read the transcription."""
        options = self._submission.checked(asked.model_dump() if asked else {})
        job = await self._live_recordings.open(caller, options)
        return {"id": job.id, "state": job.state, "websocket": f"{STREAM}?transcription={job.id}"}

    async def transcriptions(
        self, caller: Caller, after: str | None = None, limit: PageSize = 20
    ) -> dict[str, Any]:
        """Jobs and live recordings, the newest first."""
        return {"transcriptions": await self._listed(caller, None, after, limit)}

    async def transcription(self, caller: Caller, id_: Id) -> dict[str, Any]:
        """Its state and, once it is completed, its result."""
        job = await self._submission.get(caller, id_)
        (view,) = await self._submission.views(job)
        is_completed = job.state is JobState.COMPLETED
        result = await self._submission.jobs.revisions.result(job) if is_completed else None
        return {**view, "result": result.model_dump() if result else None}

    async def delete_transcription(self, caller: Caller, id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(self._submission, await self._submission.get(caller, id_))

    async def export(self, caller: Caller, id_: Id, form: str) -> Response:
        """`GET /v1/jobs/{id}/export/{format}`."""
        return await export_of(self._submission, await self._submission.get(caller, id_), form)

    async def _listed(
        self, caller: Principal, kind: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        wanted = Filter((), kind, after, limit)
        found, _ = await self._submission.jobs.queue.find(caller.tenant, wanted)
        return await self._submission.views(*found)
