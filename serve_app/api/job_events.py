"""`GET /v1/jobs/{id}/events`: a job's progress as server-sent events, until it has ended."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio

from serve_app.api.streamed import event
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.jobs.job import Job
from serve_app.jobs.partials import Partials

POLL_S = 0.5
KEEP_ALIVE_S = 15.0


async def job_events(
    submission: Submission, job: Job, is_draining: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Ends when the job has ended or was deleted, or when this server stops."""
    partials = Partials(submission.jobs.objects)
    sent: dict[str, Any] = {}
    quiet_s = 0.0
    while True:
        (view,) = await submission.views(job)
        for partial in await partials.new(job):
            yield event({"type": "partial", **partial})
        if view != sent or job.ended:
            sent, quiet_s = view, 0.0
            yield event({"type": job.state.value if job.ended else "progress", "job": view})
        if job.ended or is_draining():
            return
        await anyio.sleep(POLL_S)
        quiet_s += POLL_S
        if quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield b": keep-alive\n\n"
        try:
            job = await submission.jobs.queue.get(job.tenant, job.id)
        except ClientError as error:
            yield event(error.body())
            if error.code == "job_not_found":
                return
