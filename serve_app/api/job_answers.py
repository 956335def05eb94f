"""A job's result, exports and audio as answers, for the routes of jobs and their legacy aliases."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol
from urllib.parse import quote

from fastapi.responses import JSONResponse, Response

from serve_app.api.ranges import Range, range_of
from serve_app.api.streamed import Streamed
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.jobs.export import FORMS, export
from serve_app.jobs.job import Job
from serve_app.jobs.media import download_name
from serve_app.jobs.playback import peaks_of, playback_of
from serve_app.jobs.result import Result
from serve_app.observability.audit import audit


async def result_of(submission: Submission, job: Job, revision: int | None = None) -> Response:
    """The result, the newest revision unless another one is asked for; 202 with the job's state
    while there is none."""
    if not job.ended:
        (view,) = await submission.views(job)
        return JSONResponse(view, 202, {"Retry-After": "1"})
    result = await submission.jobs.revisions.result(job, revision)
    return result_answer(job, result, job.revision if revision is None else revision)


def result_answer(job: Job, result: Result, revision: int) -> Response:
    body = {"id": job.id, "cached": job.cached, "revision": revision, **result.model_dump()}
    return JSONResponse(body, headers={"ETag": etag(job, revision)})


def etag(job: Job, revision: int) -> str:
    return f'"{job.id}-{revision}"'


async def export_of(
    submission: Submission, job: Job, form: str, revision: int | None = None
) -> Response:
    if form not in FORMS:
        reason = f"format {form[:40]!r} is not one of {', '.join(FORMS)}"
        raise ClientError("unknown_format", reason)
    if not job.ended:
        return await result_of(submission, job)
    exported = export(form, await submission.jobs.revisions.result(job, revision))
    name = job.filename.rsplit(".", 1)[0] or "transcript"
    return Response(
        exported.body, media_type=exported.media_type, headers=_attachment(f"{name}.{form}")
    )


async def original_of(submission: Submission, job: Job, range_header: str | None) -> Response:
    """The recording as it was submitted."""
    stored = await submission.jobs.objects.open(job, "audio")
    if stored is None:
        raise ClientError("not_found", "the recording was deleted")
    name = download_name(job.filename, job.media_type)
    return _ranged(stored, range_header, job.media_type, _attachment(name))


async def playback_answer(submission: Submission, job: Job, range_header: str | None) -> Response:
    """The playback copy, for a player: not a download."""
    copy = await playback_of(submission.jobs.objects, job)
    return _ranged(copy, range_header, "audio/wav", {"ETag": f'"{job.id}-playback"'})


async def peaks_answer(submission: Submission, job: Job) -> Response:
    return JSONResponse(await peaks_of(submission.jobs.objects, job))


async def deletion_of(submission: Submission, job: Job) -> Response:
    after = await submission.jobs.delete(job)
    audit("job_deleted", id=job.id)
    if after is None:
        return Response(status_code=204)
    (view,) = await submission.views(after)
    return JSONResponse(view, 200 if after.ended else 202)


class Sound(Protocol):
    """Bytes of which any part can be read."""

    @property
    def size(self) -> int: ...

    def pieces(self, start: int, end: int) -> AsyncIterator[bytes]: ...


def _ranged(
    sound: Sound, range_header: str | None, media_type: str, headers: Mapping[str, str]
) -> Response:
    """The part that was asked for. Raises `ClientError` for one outside of it."""
    range_ = range_of(range_header, sound.size)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for piece in sound.pieces(range_.start, range_.end):
            yield piece

    response = Streamed(pieces(), media_type)
    response.status_code = 206 if range_.partial else 200
    response.headers.update({**_range_headers(range_, sound.size), **headers})
    return response


def _range_headers(range_: Range, size: int) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(range_.end - range_.start),
        "X-Content-Type-Options": "nosniff",
    }
    if range_.partial:
        headers["Content-Range"] = f"bytes {range_.start}-{range_.end - 1}/{size}"
    return headers


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
