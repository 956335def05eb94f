"""How long to wait before trying again. Pure, but for its dice."""

import random


def backoff_s(base_s: float, attempt: int, longest_s: float = float("inf")) -> float:
    """Seconds before attempt `attempt` + 1: exponential, and spread over its upper half, so that
    those who failed together do not come back together."""
    return _whole_s(base_s, attempt, longest_s) * random.uniform(0.5, 1.0)


def full_jitter_s(base_s: float, attempt: int, longest_s: float) -> float:
    """The same, spread over all of it: for many who may lose the same server at once."""
    return _whole_s(base_s, attempt, longest_s) * random.random()


def _whole_s(base_s: float, attempt: int, longest_s: float) -> float:
    return min(longest_s, base_s * 2.0 ** min(attempt - 1, 64))
