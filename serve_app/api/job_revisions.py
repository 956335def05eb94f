"""Corrections of results: `PATCH /v1/jobs/{id}/result`, and the list of revisions."""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import Response

from serve_app.api.job_answers import etag, result_answer
from serve_app.api.jobs import Id
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller
from serve_app.jobs.correction import Correction
from serve_app.jobs.job import Job
from serve_app.jobs.revisions import conflict

IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="The `ETag` of the result that was read; it is needed."),
]


def router(submission: Submission) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs/{id}", tags=["jobs"])

    @routes.patch("/result")
    async def correct(
        caller: Caller, id_: Id, asked: Correction, if_match: IfMatch = None
    ) -> Response:
        """Correct a result: all edits or none. The answer is the corrected result with its `ETag`.
        412 if somebody else has corrected it meanwhile: nothing is changed then."""
        job = await submission.get(caller, id_)
        _check(job, if_match)
        if bool(asked.edits) == (asked.revert_to is not None):
            raise ClientError("invalid_request", "send `edits` or `revert_to`", param="edits")
        job, result = await submission.jobs.revisions.correct(job, caller, asked)
        await submission.jobs.search.index(job)
        return result_answer(job, result, job.revision)

    @routes.get("/revisions")
    async def list_revisions(caller: Caller, id_: Id) -> dict[str, Any]:
        """The newest first. Revision 0, the recogniser's result, is not listed."""
        found = await submission.jobs.revisions.all(await submission.get(caller, id_))
        return {"object": "list", "data": [it._asdict() for it in found]}

    return routes


def _check(job: Job, if_match: str | None) -> None:
    """Raises `ClientError`."""
    if if_match is None:
        reason = "send `If-Match` with the `ETag` of the result that you correct"
        raise ClientError("if_match_missing", reason)
    if if_match.strip() not in (etag(job, job.revision), "*"):
        raise conflict(job.revision)
