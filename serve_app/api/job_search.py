"""`GET /v1/jobs?q=`: recordings found by words of their names and transcripts."""

from typing import Any

from serve_app.api.submission import Submission
from serve_app.jobs.job import Job
from serve_app.jobs.queue import Filter
from serve_app.jobs.search_index import Found
from serve_app.jobs.search_words import Term, in_name, terms

NAMED = 1_000
"""Names of that many recordings are looked at, the newest: they may be stored encrypted."""


async def searched(
    submission: Submission, tenant: str, text: str, after: str | None, limit: int
) -> dict[str, Any]:
    """A page of the list; each job has `found`: passages with `marks`, the places of the words in
    their text, as [start, end) in Unicode code points. Raises `ClientError`."""
    asked, jobs = terms(text), submission.jobs
    before = (await jobs.queue.get(tenant, after)).sequence if after else None
    ids = await _found(submission, tenant, asked, before, limit + 1) if asked else []
    found = await jobs.queue.those(tenant, ids[:limit])
    views = await submission.views(*found)
    passages = [await jobs.search.passages_of(job.id, asked) for job in found]
    return {
        "object": "list",
        "data": [{**view, "found": _shown(its)} for view, its in zip(views, passages, strict=True)],
        "has_more": len(ids) > limit,
        "searched": "names" if jobs.objects.encrypts else "all",
    }


async def _found(
    submission: Submission, tenant: str, asked: list[Term], before: int | None, most: int
) -> list[str]:
    named = await _named(submission, tenant, asked)
    return await submission.jobs.search.find(tenant, asked, named, before, most)


async def _named(submission: Submission, tenant: str, asked: list[Term]) -> list[str]:
    newest, _ = await submission.jobs.queue.find(tenant, Filter(limit=NAMED))
    return [job.id for job in newest if _has_name(job) and in_name(asked, job.filename)]


def _has_name(job: Job) -> bool:
    """A live recording was not a file."""
    return job.kind == "file"


def _shown(passages: list[Found]) -> list[dict[str, Any]]:
    return [it._asdict() for it in passages]
