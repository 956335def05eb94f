"""A histogram with fixed buckets. Pure.

Histograms of several replicas add up bucket by bucket, so a percentile of the sum is one of all
values; percentiles of percentiles would mean nothing.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from serve_app.observability.table import BUCKETS_S


class State(NamedTuple):
    """A histogram on its way to another replica. `counts` has one more than there are bounds: the
    values above the last."""

    counts: tuple[int, ...]
    total: float
    least: float
    most: float


EMPTY = State((0,) * (len(BUCKETS_S) + 1), 0.0, 0.0, 0.0)


class Histogram:
    def __init__(self, state: Sequence[object] = EMPTY) -> None:
        known = State(*state)  # type: ignore[arg-type]
        self._counts = list(known.counts)
        self.total, self.least, self.most = known[1:]

    @property
    def count(self) -> int:
        return sum(self._counts)

    def observe(self, seconds: float) -> None:
        first = not self.count
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total += seconds
        self.least = seconds if first else min(self.least, seconds)
        self.most = max(self.most, seconds)

    def state(self) -> State:
        return State(tuple(self._counts), self.total, self.least, self.most)

    def add(self, other: "Histogram") -> Self:
        """Add the values of another histogram."""
        if other.count:
            self.least = min(self.least, other.least) if self.count else other.least
            self.most = max(self.most, other.most)
            self.total += other.total
            self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        return self

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Estimated: values lie evenly within their bucket, as in Prometheus' `histogram_quantile`,
        but never outside of the least and greatest value seen. 0 where there is no value."""
        rank, below = share * self.count, 0
        bounds = (0.0, *BUCKETS_S, max(self.most, BUCKETS_S[-1]))
        for (low, high), count in zip(pairwise(bounds), self._counts, strict=True):
            if count and below + count >= rank:
                value = low + (high - low) * (rank - below) / count
                return min(self.most, max(self.least, value))
            below += count
        return self.most

    def buckets(self) -> dict[str, int]:
        """Cumulative counts by upper bound, as in Prometheus."""
        cumulative, below = {}, 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._counts, strict=True):
            below += count
            cumulative[bound] = below
        return cumulative
