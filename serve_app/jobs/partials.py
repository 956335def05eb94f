"""The words of a running job's windows, as their checkpoints appear."""

from typing import Any

import msgspec

from serve_app.errors import ClientError
from serve_app.jobs.checkpoints import window_name
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.joining import Transcribed
from serve_app.jobs.objects import Objects
from serve_app.live.transcript import ms


class Partials:
    """For one watching client: each window once, in order."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._sent = 0

    async def new(self, job: Job) -> list[dict[str, Any]]:
        """Those since the last call."""
        found = []
        if job.state is not JobState.RUNNING:
            return []
        while body := await self._read(job):
            window = msgspec.msgpack.decode(body, type=Transcribed)
            found.append(
                {
                    "window": self._sent,
                    "start_ms": ms(window.start),
                    "end_ms": ms(window.end),
                    "text": " ".join(word.text for word in window.words),
                }
            )
            self._sent += 1
        return found

    async def _read(self, job: Job) -> bytes | None:
        try:
            return await self._objects.read(job, window_name(self._sent))
        except ClientError:
            return None  # the next call tries again
