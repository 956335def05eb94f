"""A job's result, exports and audio as answers, for the routes of jobs and their legacy aliases."""

from collections.abc import AsyncGenerator
from urllib.parse import quote

from fastapi.responses import JSONResponse, Response

from serve_app.api.ranges import Range, range_of
from serve_app.api.streamed import Streamed
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.jobs.export import FORMS, export
from serve_app.jobs.job import Job
from serve_app.jobs.media import download_name
from serve_app.observability.audit import audit


async def result_of(submission: Submission, job: Job) -> Response:
    """The result; 202 with the job's state while there is none."""
    if not job.ended:
        (view,) = await submission.views(job)
        return JSONResponse(view, 202, {"Retry-After": "1"})
    result = await submission.jobs.result(job)
    return JSONResponse({"id": job.id, "cached": job.cached, **result.model_dump()})


async def export_of(submission: Submission, job: Job, form: str) -> Response:
    if form not in FORMS:
        reason = f"format {form[:40]!r} is not one of {', '.join(FORMS)}"
        raise ClientError("unknown_format", reason)
    if not job.ended:
        return await result_of(submission, job)
    exported = export(form, await submission.jobs.result(job))
    name = job.filename.rsplit(".", 1)[0] or "transcript"
    return Response(
        exported.body, media_type=exported.media_type, headers=_attachment(f"{name}.{form}")
    )


async def audio_of(submission: Submission, job: Job, range_header: str | None) -> Response:
    stored = await submission.jobs.objects.open(job, "audio")
    if stored is None:
        raise ClientError("not_found", "the recording was deleted")
    range_ = range_of(range_header, stored.size)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for piece in stored.pieces(range_.start, range_.end):
            yield piece

    response = Streamed(pieces(), job.media_type)
    response.status_code = 206 if range_.partial else 200
    response.headers.update(_audio_headers(job, range_, stored.size))
    return response


async def deletion_of(submission: Submission, job: Job) -> Response:
    after = await submission.jobs.delete(job)
    audit("job_deleted", id=job.id)
    if after is None:
        return Response(status_code=204)
    (view,) = await submission.views(after)
    return JSONResponse(view, 200 if after.ended else 202)


def _audio_headers(job: Job, range_: Range, size: int) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(range_.end - range_.start),
        "X-Content-Type-Options": "nosniff",
        **_attachment(download_name(job.filename, job.media_type)),
    }
    if range_.partial:
        headers["Content-Range"] = f"bytes {range_.start}-{range_.end - 1}/{size}"
    return headers


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
