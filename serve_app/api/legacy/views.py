"""Jobs and results in the shapes of the legacy paths, field by field."""

from typing import Any

from serve_app.jobs.alignment import number_of
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.result import Result

STATUSES = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "processing",
    JobState.CANCELLING: "processing",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
}
"""These clients know four; a cancelled job has failed, and its error says why."""

STEPS = {
    "prepare": "Preprocessing the recording",
    "transcribe": "Transcribing",
    "diarize": "Analysing speakers",
    "align": "Aligning words and speakers",
}
ENDINGS = {
    JobState.QUEUED: "Waiting in the queue",
    JobState.COMPLETED: "Completed",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
STARTING = "Starting"


def accepted(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "status": STATUSES[job.state],
        "message": f"The recording was accepted; ask for its state at /api/status/{job.id}",
    }


def status(job: Job) -> dict[str, Any]:
    """`progress` is from 0 to 100."""
    return {
        "job_id": job.id,
        "status": STATUSES[job.state],
        "progress": round(job.progress, 1),
        "step": ENDINGS.get(job.state) or STEPS.get(job.step, STARTING),
        "error": _error(job),
    }


def _error(job: Job) -> str | None:
    if job.state is JobState.CANCELLED:
        return "The job was cancelled"
    return (job.error_message or job.error_code) if job.error_code else None


def results(result: Result) -> dict[str, Any]:
    """All times are seconds, as floats."""
    return {
        "segments": [_span(it) | {"text": it.text} for it in result.segments],
        "aligned_segments": [
            _span(it) | {"text": it.text, "speaker": speaker(it.speaker)}
            for it in result.aligned_segments
        ],
        "full_text": result.full_text,
        "language": result.language,
        "duration": result.duration_ms / 1000,
        "speaker_turns": [
            {"speaker": speaker(turn.speaker), **_span(turn)} for turn in result.speaker_turns
        ],
        "provider": result.engines.get("transcriber"),
        "performance_metrics": _performance(result.performance_metrics),
    }


def _span(it: Any) -> dict[str, float]:
    return {"start": it.start_ms / 1000, "end": it.end_ms / 1000}


def speaker(label: str | None) -> str | None:
    """`A` is SPEAKER_00, as pyannote names speakers; None without diarization."""
    return None if label is None else f"SPEAKER_{number_of(label):02}"


def _performance(metrics: dict[str, float]) -> dict[str, Any]:
    seconds = {name[:-2]: value for name, value in metrics.items() if name.endswith("_s")}
    return {"total_duration": seconds.pop("total", 0.0), "stages": seconds}
