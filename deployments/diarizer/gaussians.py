"""Speakers by the Bayesian information criterion: segments that one Gaussian explains as well as
two belong to one speaker. Pure.

Chen & Gopalakrishnan 1998, "Speaker, environment and channel change detection and clustering via
the BIC"; the resegmentation is a Viterbi pass over one Gaussian per speaker, as in LIUM's baseline.
Long recordings are clustered in parts, then the clusters of all parts: this bounds time and memory.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RIDGE = 1e-2
"""Added to variances, because a second of speech has few frames."""

FAR = np.inf


class GaussianCluster(NamedTuple):
    """Sufficient statistics of frames, and the segments that they belong to."""

    frames: int
    total: Any
    squares: Any
    members: tuple[int, ...]


def cluster_of(frames: Any, member: int) -> GaussianCluster:
    """Of frames x dimensions."""
    exact = frames.astype(np.float64)
    return GaussianCluster(len(exact), exact.sum(axis=0), exact.T @ exact, (member,))


def merge(one: GaussianCluster, other: GaussianCluster) -> GaussianCluster:
    return GaussianCluster(
        one.frames + other.frames,
        one.total + other.total,
        one.squares + other.squares,
        one.members + other.members,
    )


def covariance(cluster: GaussianCluster) -> Any:
    mean = cluster.total / cluster.frames
    spread = cluster.squares / cluster.frames - np.outer(mean, mean)
    return spread + RIDGE * np.eye(len(mean))


def agglomerate(clusters: Sequence[GaussianCluster], most: int) -> list[GaussianCluster]:
    """Merge the two most similar clusters by BIC until `most` are left."""
    alive = list(clusters)
    cost = [_cost(one) for one in alive]
    gains = np.full((len(alive), len(alive)), FAR)
    for number in range(len(alive)):
        gains[number, :number] = _gains(alive, cost, number, range(number))
    left = set(range(len(alive)))
    while len(left) > most:
        i, j = map(int, np.unravel_index(int(np.argmin(gains)), gains.shape))
        alive[j] = merge(alive[i], alive[j])
        cost[j] = _cost(alive[j])
        left.remove(i)
        gains[i, :] = gains[:, i] = FAR
        others = sorted(left - {j})
        for other, gain in zip(others, _gains(alive, cost, j, others), strict=True):
            gains[max(other, j), min(other, j)] = gain
    return [alive[number] for number in sorted(left)]


def closest(clusters: Sequence[GaussianCluster]) -> tuple[float, int, int]:
    """The smallest separation of any two, and which two.

    It is the delta BIC of two Gaussians instead of one, divided by the harmonic mean of their
    frames.
    """
    cost = [_cost(one) for one in clusters]
    best = (FAR, 0, 0)
    for i in range(1, len(clusters)):
        for j, gain in enumerate(_gains(clusters, cost, i, range(i))):
            frames = 2 / (1 / clusters[i].frames + 1 / clusters[j].frames)
            best = min(best, (float(gain) / frames, i, j))
    return best


def _cost(cluster: GaussianCluster) -> float:
    return float(np.linalg.slogdet(covariance(cluster))[1]) * cluster.frames


def _gains(
    alive: Sequence[GaussianCluster], cost: Sequence[float], one: int, others: Sequence[int]
) -> Any:
    """Delta BIC of `one` with each of the others; below 0, one Gaussian is enough for both."""
    if not len(others):
        return np.zeros(0)
    mine = alive[one]
    frames = np.array([mine.frames + alive[it].frames for it in others], np.float64)
    totals = mine.total + np.stack([alive[it].total for it in others])
    squares = mine.squares + np.stack([alive[it].squares for it in others])
    means = totals / frames[:, None]
    spread = squares / frames[:, None, None] - means[:, :, None] * means[:, None, :]
    size = len(mine.total)
    both = np.linalg.slogdet(spread + RIDGE * np.eye(size))[1] * frames
    apart = cost[one] + np.array([cost[it] for it in others])
    parameters = size + size * (size + 1) / 2
    return 0.5 * (both - apart) - 0.5 * parameters * np.log(frames)


def likelihoods(frames: Any, clusters: Sequence[GaussianCluster]) -> Any:
    """Log-likelihood of every frame under each cluster's Gaussian: frames x clusters."""
    columns = []
    for cluster in clusters:
        mean = (cluster.total / cluster.frames).astype(np.float32)
        spread = covariance(cluster)
        inverse = np.linalg.inv(spread).astype(np.float32)
        off = frames.astype(np.float32) - mean
        distance = np.einsum("ij,ij->i", off @ inverse, off)
        columns.append(-0.5 * (distance + np.linalg.slogdet(spread)[1]))
    return np.stack(columns, axis=1)


def viterbi(scores: Any, change: float) -> Any:
    """The best path through frames x speakers, where changing the speaker costs `change`."""
    count = scores.shape[1]
    best = scores[0].astype(np.float64)
    came_from = np.zeros(scores.shape, np.int16)
    stay = np.arange(count)
    for at in range(1, len(scores)):
        top = int(np.argmax(best))
        changed = best[top] - change > best
        came_from[at] = np.where(changed, top, stay)
        best = np.where(changed, best[top] - change, best) + scores[at]
    path = np.empty(len(scores), np.int16)
    path[-1] = int(np.argmax(best))
    for at in range(len(scores) - 1, 0, -1):
        path[at - 1] = came_from[at, path[at]]
    return path
