"""A job: its options, its states, and what the API shows of it. Pure."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.interfaces import SpeakerCount


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
CLAIMED = frozenset({JobState.RUNNING, JobState.CANCELLING})

MOST_SPEAKERS = 20
STEP_SHARES = {"prepare": 5.0, "transcribe": 75.0, "diarize": 15.0, "align": 5.0}
"""The share of each step in the progress, in per cent."""


class JobOptions(BaseModel):
    """The options of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str | None = Field(None, max_length=35)
    speakers: int | None = Field(
        None, ge=1, le=MOST_SPEAKERS, description="The exact number of speakers."
    )
    min_speakers: int | None = Field(None, ge=1, le=MOST_SPEAKERS)
    max_speakers: int | None = Field(None, ge=1, le=MOST_SPEAKERS)
    diarize: bool = True
    words: bool = Field(True, description="Words with times and confidence in the result.")
    channels: Literal["mix", "speakers"] = Field(
        "mix", description="`speakers`: each channel is a separate speaker."
    )
    denoise: bool = False
    prompt: str | None = Field(
        None, max_length=2000, description="A question on each window, for engines that can answer."
    )
    hotwords: list[str] = []
    grammar: str | None = None
    webhook: str | None = Field(None, max_length=2000)
    priority: int = Field(0, ge=-10, le=10, description="Higher goes first.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.min_speakers, self.max_speakers
        if low and high and low > high:
            raise ValueError("min_speakers must not be greater than max_speakers")
        if self.speakers and (low or high):
            raise ValueError(
                "speakers is an exact number and excludes min_speakers and max_speakers"
            )
        return self

    @property
    def count(self) -> SpeakerCount:
        exact = self.speakers
        most = exact or self.max_speakers or MOST_SPEAKERS
        return SpeakerCount(exact or self.min_speakers or 1, most)

    @property
    def print(self) -> str:
        """The options that change the result."""
        return self.model_dump_json(exclude={"webhook", "priority"})


class Job(NamedTuple):
    """A job's row. Times are seconds since 1970."""

    id: str
    tenant: str
    sequence: int
    state: JobState
    step: str
    progress: float
    options: JobOptions
    filename: str
    size: int
    """Of the upload, in bytes."""
    media_type: str
    created: float
    started: float | None
    finished: float | None
    lease: str | None
    attempts: int
    losses: int
    duration_s: float | None
    engine: str | None
    cached: bool
    warnings: list[str]
    error_code: str | None
    error_message: str | None
    sealed_key: bytes | None
    digest: str
    idempotency_key: str | None
    kind: str
    """`file`, or `live` for a recorded live session."""
    key: str = ""
    """The id of the key that submitted it."""
    heard_s: float = 0.0
    """Seconds of the recording that have been transcribed."""
    revision: int = 0
    """The newest correction of the result; 0: as the recogniser heard it."""

    @classmethod
    def of(cls, row: Any) -> "Job":
        fields: dict[str, Any] = {name: row[name] for name in cls._fields}
        fields["state"] = JobState(fields["state"])
        fields["options"] = JobOptions.model_validate_json(fields["options"])
        fields["warnings"] = json.loads(fields["warnings"])
        return cls(**fields)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def result_name(self) -> str:
        """Of the object with the newest result."""
        return result_name(self.revision)

    def path(self, name: str) -> str:
        """The path of one of its objects."""
        return f"{self.tenant}/{self.id}/{name}"


def result_name(revision: int) -> str:
    """Of the object with the result, or with a correction of it."""
    return f"revisions/{revision:06}/result" if revision else "result"


class Standing(NamedTuple):
    """A waiting job's position in the queue."""

    position: int
    """1 is next."""
    estimate_s: float | None
    """Seconds until its end; None if unknown."""


def view(job: Job, standing: Standing | None, now: float) -> dict[str, Any]:
    """The job as the API shows it."""
    estimate = standing.estimate_s if standing else _remaining_s(job, now)
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "state": job.state.value,
        "step": (job.step or None) if job.state is not JobState.COMPLETED else None,
        "progress": round(job.progress, 1),
        "queue_position": standing.position if standing else None,
        "estimate_s": round(estimate, 1) if estimate is not None else None,
        "created_at": job.created,
        "started_at": job.started,
        "finished_at": job.finished,
        "file": {"name": job.filename, "bytes": job.size, "duration_s": job.duration_s},
        "options": job.options.model_dump(),
        "engine": job.engine,
        "cached": job.cached,
        "revision": job.revision,
        "warnings": job.warnings,
        "error": error,
    }


def _remaining_s(job: Job, now: float) -> float | None:
    if job.state is not JobState.RUNNING or not job.started or job.progress < 1:
        return None
    return max(0.0, (now - job.started) * (100 - job.progress) / job.progress)


def progress(shares: Mapping[str, float]) -> float:
    """Total progress in per cent, from the share (0 to 1) of each step that is done."""
    return sum(STEP_SHARES[step] * min(1.0, share) for step, share in shares.items())
