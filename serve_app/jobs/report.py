"""How far a job is, as its pipeline knows it and its lease's keeper writes it down. Pure."""

from collections.abc import Callable
from typing import Any

from deployments.interfaces import RATE
from serve_app.jobs.job import STEP_SHARES, progress


class Report:
    """Shares of the steps that are done, and what was found on the way."""

    def __init__(self) -> None:
        self.shares = dict.fromkeys(STEP_SHARES, 0.0)
        self.warnings: list[str] = []
        self.samples: int | None = None
        """Of the recording, once it was decoded."""
        self.checkpoints = 0
        """Kept by this worker: what would not have to be done again."""
        self.on_step: Callable[[], None] = lambda: None
        """Called when another step begins, so that it can be written down at once."""

    def advance(self, step: str, sample: int, samples: int) -> None:
        """The step has come to `sample` of `samples`; where these are not known, nowhere."""
        if samples:
            self.shares[step] = max(self.shares[step], min(0.99, sample / samples))

    def skip(self, step: str) -> None:
        """The step is done."""
        before = self.step
        self.shares[step] = 1.0
        if self.step != before:
            self.on_step()

    def warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    @property
    def step(self) -> str:
        """The first that is not done."""
        return next((step for step, share in self.shares.items() if share < 1), "align")

    def changes(self) -> dict[str, Any]:
        """For the job's row. A job that gets on has not lost its worker in the same place."""
        return {
            "step": self.step,
            "progress": progress(self.shares),
            "warnings": self.warnings,
            "duration_s": self.samples / RATE if self.samples is not None else None,
            **({"losses": 0} if self.checkpoints else {}),
        }
