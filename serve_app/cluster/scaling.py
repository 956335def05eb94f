"""The number of replicas, from the live sessions that they carry, never from CPU. Pure.

Serve counts a lane as one request, however many sessions it carries, so every model replica
reports `sessions` instead. Serve applies bounds and delays.
"""

import math
from typing import Any

SESSIONS = "sessions"
JOBS = "jobs"


class SessionsPolicy:
    """Serve calls it with its `AutoscalingContext`; `sessions_per_replica` is the target."""

    def __init__(self, sessions_per_replica: int) -> None:
        self._target = sessions_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        reported = (context.aggregated_metrics or {}).get(SESSIONS, {})
        return replicas_for(sum(reported.values()), self._target), {}


class JobsPolicy(SessionsPolicy):
    """By the jobs that wait or run; every worker counts all of them."""

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        reported = (context.aggregated_metrics or {}).get(JOBS, {})
        return replicas_for(max(reported.values(), default=0), self._target), {}


def replicas_for(sessions: float, sessions_per_replica: int) -> int:
    return max(1, math.ceil(sessions / sessions_per_replica))
