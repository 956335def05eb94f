"""The embedded diarizer: cepstra, BIC clustering and a Viterbi pass, with NumPy alone.

For demonstrations: it works for voices that differ, on one channel, without overlapping speech. It
keeps 38 bytes per frame: 14 MB per hour of speech.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from deployments.diarizer.cepstra import COEFFICIENTS, FRAME, HOP, cepstra
from deployments.diarizer.gaussians import (
    GaussianCluster,
    agglomerate,
    closest,
    cluster_of,
    likelihoods,
    merge,
    viterbi,
)
from deployments.interfaces import BYTES_PER_SAMPLE, RATE, Option, SpeakerCount, SpeakerTurn
from deployments.vad import FRAME_SAMPLES, voiced

BLOCK = 10 * RATE
"""Samples whose cepstra are computed together."""

SEGMENT = 150
"""Frames of an initial segment: 1.5 s."""

QUIET = 1e-3
"""Frames 30 dB below the loud ones are ignored."""

LEAST_SHARE = 0.08
"""Share of the speech that a speaker must have if the number of speakers is not given."""

SHORTEST = 40
"""Frames that a cluster needs at least."""

PART = 400
"""Segments that are clustered together: ten minutes of speech."""

MOST_AT_FIRST = 10
"""Clusters before similar speakers are merged, unless the request asks for more."""

STEP = 10
"""Frames (100 ms) within which the speaker does not change."""

PASSES = 2
CHANGE = 120.0
"""Log-likelihood that a change of speaker must gain: about that of one second."""


class Bic:
    """Implements `DiarizerEngine`."""

    name = "bic"
    options = frozenset({Option.SPEAKERS})

    def __init__(self, separation: float) -> None:
        self._separation = separation

    async def start(self) -> None:
        """Nothing to load."""

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]:
        voice = _Voice()
        async for piece in audio:
            if voice.push(piece):
                await asyncio.to_thread(voice.take)
        await asyncio.to_thread(voice.take, True)
        return await asyncio.to_thread(turns_of, voice, speakers, self._separation)

    async def stop(self) -> None:
        """Nothing to stop."""


class _Voice:
    """The voiced frames of a recording: their cepstra and positions."""

    def __init__(self) -> None:
        import webrtcvad

        self._vad = webrtcvad.Vad(2)
        self._pcm = bytearray()
        self._at = 0
        self._frames: list[Any] = []
        self._positions: list[Any] = []

    def push(self, pcm: bytes) -> bool:
        """Whether there is enough to `take`."""
        self._pcm += pcm
        return len(self._pcm) >= (BLOCK + FRAME) * BYTES_PER_SAMPLE

    def take(self, last: bool = False) -> None:
        """Turn full blocks into cepstra, for frames that begin in a voiced 20 ms."""
        while len(self._pcm) >= (BLOCK + FRAME) * BYTES_PER_SAMPLE or (last and self._pcm):
            pcm = bytes(self._pcm[: (BLOCK + FRAME) * BYTES_PER_SAMPLE])
            del self._pcm[: BLOCK * BYTES_PER_SAMPLE]
            self._take(pcm)

    def _take(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        frames = cepstra(samples)[: BLOCK // HOP]
        flags = np.array(voiced(self._vad.is_speech, pcm), bool)
        speech = flags.repeat(FRAME_SAMPLES // HOP)[: len(frames)]
        frames = frames[: len(speech)]
        speech &= audible(samples, len(speech), speech)
        self._frames.append(frames[speech].astype(np.float16))
        self._positions.append(np.flatnonzero(speech).astype(np.int32) + self._at // HOP)
        self._at += BLOCK

    def frames(self) -> tuple[Any, Any]:
        """Voiced frames x coefficients, and the index of each frame in the recording."""
        if not self._frames:
            return np.zeros((0, COEFFICIENTS), np.float16), np.zeros(0, np.int32)
        return np.concatenate(self._frames), np.concatenate(self._positions)


def audible(samples: Any, count: int, speech: Any) -> Any:
    """Frames that are not much quieter than the loud ones: a VAD includes some silence, which would
    become another speaker."""
    level = np.square(samples[: count * HOP].reshape(count, HOP)).mean(axis=1)
    loud = np.percentile(level[speech], 90) if speech.any() else 0.0
    return level > loud * QUIET


def turns_of(voice: _Voice, speakers: SpeakerCount, enough: float) -> list[SpeakerTurn]:
    frames, positions = voice.frames()
    segments = segments_of(positions)
    clusters = [
        cluster_of(frames[begin:end], number)
        for number, (begin, end) in enumerate(segments)
        if end - begin >= SHORTEST
    ]
    if not clusters:
        return [SpeakerTurn(0, *_span(positions, begin, end)) for begin, end in segments]
    found = _begin(clusters, max(speakers.least, min(speakers.most, MOST_AT_FIRST)))
    path, found = _refine(frames, found)
    while len(found) > speakers.least:
        separation, i, j = _least_apart(found)
        if separation >= enough and len(found) <= speakers.most:
            break
        rest = [it for number, it in enumerate(found) if number not in (i, j)]
        path, found = _refine(frames, [*rest, merge(found[i], found[j])])
    return _turns(path, positions)


def _least_apart(found: list[GaussianCluster]) -> tuple[float, int, int]:
    """The separation of the two clusters that are most likely one speaker, and which two. A cluster
    with little speech counts as part of another."""
    total = sum(it.frames for it in found)
    small = min(range(len(found)), key=lambda number: found[number].frames)
    if found[small].frames >= LEAST_SHARE * total:
        return closest(found)
    others = [number for number in range(len(found)) if number != small]
    pairs = [(closest([found[small], found[other]])[0], other) for other in others]
    return (0.0, small, min(pairs)[1])


def _refine(frames: Any, found: list[GaussianCluster]) -> tuple[Any, list[GaussianCluster]]:
    """The speaker of each frame, and the speakers computed from those frames; some may vanish."""
    path = np.zeros(len(frames), np.int16)
    for _ in range(PASSES if len(found) > 1 else 0):
        scores = likelihoods(frames, found)
        steps = np.arange(0, len(scores), STEP)
        path = viterbi(np.add.reduceat(scores, steps), CHANGE).repeat(STEP)[: len(scores)]
        alive = [number for number in range(len(found)) if (path == number).sum() >= SHORTEST]
        found = [cluster_of(frames[path == number], 0) for number in alive]
        renamed = np.zeros(int(path.max()) + 1, np.int16)
        renamed[alive] = np.arange(len(alive))
        path = renamed[path]
    return path, found


def segments_of(positions: Any) -> list[tuple[int, int]]:
    """Runs of voiced frames without a gap of 200 ms, cut into about `SEGMENT` frames each."""
    gaps = np.flatnonzero(np.diff(positions) > 20) + 1
    borders = [0, *gaps.tolist(), len(positions)]
    segments = []
    for begin, end in itertools.pairwise(borders):
        pieces = max(1, round((end - begin) / SEGMENT))
        cuts = np.linspace(begin, end, pieces + 1).astype(int).tolist()
        segments += [(a, b) for a, b in itertools.pairwise(cuts) if b > a]
    return segments


def _begin(clusters: list[GaussianCluster], most: int) -> list[GaussianCluster]:
    """Cluster each part, then the clusters of all parts."""
    while len(clusters) > PART:
        parts = [clusters[at : at + PART] for at in range(0, len(clusters), PART)]
        clusters = [it for part in parts for it in agglomerate(part, min(len(part), PART // 8))]
    return agglomerate(clusters, most)


def _turns(path: Any, positions: Any) -> list[SpeakerTurn]:
    """Runs of one speaker; a gap of half a second ends one."""
    ends = np.flatnonzero((np.diff(path) != 0) | (np.diff(positions) > 50)) + 1
    borders = [0, *ends.tolist(), len(path)]
    return [
        SpeakerTurn(int(path[begin]), *_span(positions, begin, end))
        for begin, end in itertools.pairwise(borders)
        if end > begin
    ]


def _span(positions: Any, begin: int, end: int) -> tuple[int, int]:
    return int(positions[begin]) * HOP, (int(positions[end - 1]) + 1) * HOP
