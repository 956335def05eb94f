"""A job's progress: set by its pipeline, stored when its lease is renewed. Pure."""

from collections.abc import Callable
from typing import Any

from deployments.interfaces import RATE
from serve_app.jobs.job import STEP_SHARES, progress


class Report:
    """The finished share of each step, and the warnings so far."""

    def __init__(self, heard_s: float = 0.0) -> None:
        """`heard_s`: seconds that workers before this one have transcribed."""
        self._heard_s = heard_s
        self.shares = dict.fromkeys(STEP_SHARES, 0.0)
        self.warnings: list[str] = []
        self.samples: int | None = None
        """Of the recording, once it is decoded."""
        self.checkpoints = 0
        """Stored by this worker."""
        self.on_step: Callable[[], None] = lambda: None
        """Called when a step begins, so that it can be stored at once."""

    def advance(self, step: str, sample: int, samples: int) -> None:
        """The step is at `sample` of `samples`; ignored if `samples` is 0, unknown."""
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
        """The first step that is not done."""
        return next((step for step, share in self.shares.items() if share < 1), "align")

    @property
    def heard_s(self) -> float:
        """Seconds that have been transcribed, up to the last window that was. A result from the
        cache needs none."""
        return max(self._heard_s, self.shares["transcribe"] * (self.samples or 0) / RATE)

    def changes(self) -> dict[str, Any]:
        """For the job's row. `losses` counts workers lost without a new checkpoint."""
        return {
            "step": self.step,
            "progress": progress(self.shares),
            "warnings": self.warnings,
            "heard_s": self.heard_s,
            "duration_s": self.samples / RATE if self.samples is not None else None,
            **({"losses": 0} if self.checkpoints else {}),
        }
