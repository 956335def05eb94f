"""The webhook of a job that has ended, inserted in the same transaction."""

import json
import time
import uuid
from typing import Any

from serve_app.jobs.database import now
from serve_app.jobs.job import Job
from serve_app.jobs.private import Private
from serve_app.jobs.tables import deliveries


async def announce(connection: Any, job: Job, private: Private) -> None:
    """Insert the job's webhook, if it has one; it is sent after the commit."""
    if not job.options.webhook:
        return
    data: dict[str, Any] = {"id": job.id, "state": job.state.value, "cached": job.cached}
    if job.error_code:
        data["error"] = {"code": job.error_code, "message": job.error_message}
    body = {"type": f"job.{job.state.value}", "timestamp": _iso(time.time()), "data": data}
    row = {
        "id": f"msg_{uuid.uuid4().hex}",
        "job_id": job.id,
        "tenant": job.tenant,
        "url": job.options.webhook,
        "body": json.dumps(body),
        "state": "waiting",
        "attempts": 0,
        "due": now(),
        "created": now(),
    }
    await connection.execute(deliveries.insert().values(private.new_delivery(row)))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
