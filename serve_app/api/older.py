"""Paths that clients of older servers call: thin aliases of what is elsewhere."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from serve_app.api import jobs as routes_of_jobs
from serve_app.api.jobs import TENANT, Desk, Id, deletion_of, export_of, result_of
from serve_app.api.stream import PATH as STREAM
from serve_app.jobs.job import State
from serve_app.jobs.keeping import Keeping
from serve_app.jobs.queue import Filter


class LiveAsked(BaseModel):
    """What a kept live session may be told beforehand."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None


def router(desk: Desk, keeping: Keeping) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["older paths"])

    async def listed(kind: str | None, after: str | None, limit: int) -> list[dict[str, Any]]:
        found, _ = await desk.jobs.queue.find(TENANT, Filter((), kind, after, limit))
        return await desk.shown(*found)

    @routes.post("/upload", status_code=202, openapi_extra=routes_of_jobs.BODY)
    async def upload(
        request: Request, num_speakers: Annotated[int | None, Query(ge=1, le=20)] = None
    ) -> JSONResponse:
        """`POST /v1/jobs`."""
        given = {"speakers": num_speakers} if num_speakers else None
        job, _ = await desk.take(request, given)
        (shown,) = await desk.shown(job)
        return JSONResponse({"job_id": job.id, **shown}, 202)

    @routes.get("/status/{id}")
    async def status(id_: Id) -> dict[str, Any]:
        """`GET /v1/jobs/{id}`."""
        (shown,) = await desk.shown(await desk.get(id_))
        return {"job_id": id_, "status": shown["state"], **shown}

    @routes.get("/results/{id}")
    async def results(id_: Id) -> Response:
        """`GET /v1/jobs/{id}/results`."""
        return await result_of(desk, await desk.get(id_))

    @routes.get("/jobs")
    async def list_jobs(
        after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> dict[str, Any]:
        """`GET /v1/jobs`."""
        return {"jobs": await listed("file", after, limit)}

    @routes.delete("/jobs/{id}")
    async def delete_job(id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(desk, await desk.get(id_))

    @routes.post("/transcribe/upload", status_code=202, openapi_extra=routes_of_jobs.BODY)
    async def transcribe_upload(request: Request) -> JSONResponse:
        """`POST /v1/jobs`."""
        return await upload(request)

    @routes.post("/transcribe/start", status_code=201)
    async def start(asked: LiveAsked | None = None) -> dict[str, Any]:
        """A live session that is kept: stream audio to `websocket`, then read the transcription."""
        options = desk.checked(asked.model_dump() if asked else {})
        job = await keeping.open(TENANT, options)
        return {"id": job.id, "state": job.state, "websocket": f"{STREAM}?transcription={job.id}"}

    @routes.get("/transcriptions")
    async def transcriptions(
        after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> dict[str, Any]:
        """Jobs and kept live sessions, the newest first."""
        return {"transcriptions": await listed(None, after, limit)}

    @routes.get("/transcription/{id}")
    async def transcription(id_: Id) -> dict[str, Any]:
        """Its state and, once it is completed, its result."""
        job = await desk.get(id_)
        (shown,) = await desk.shown(job)
        result = await desk.jobs.result(job) if job.state is State.COMPLETED else None
        return {**shown, "result": result.model_dump() if result else None}

    @routes.delete("/transcription/{id}")
    async def delete_transcription(id_: Id) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        return await deletion_of(desk, await desk.get(id_))

    @routes.get("/export/{id}/{form}")
    async def export(id_: Id, form: str) -> Response:
        """`GET /v1/jobs/{id}/export/{format}`."""
        return await export_of(desk, await desk.get(id_), form)

    return routes
