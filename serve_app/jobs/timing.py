"""The durations of a job's stages."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from serve_app.observability import tracing


class StageTimer:
    """Seconds by stage; the times of a stage that runs several times are added."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            with tracing.span(stage) if stage != "total" else nullcontext():
                yield
        finally:
            self._spent[stage] += time.monotonic() - began

    def shown(self, audio_s: float) -> dict[str, float]:
        """For `performance_metrics`; `total` is one of the stages."""
        factor = round(audio_s / max(1e-6, self._spent["total"]), 1)
        return {
            **{f"{name}_s": round(value, 3) for name, value in self._spent.items()},
            "realtime_factor": factor,
        }
