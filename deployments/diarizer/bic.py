"""The embedded diarizer: cepstra, BIC clustering and a Viterbi pass, with NumPy alone.

Demo-grade, as the embedded recogniser is: right for voices that differ, on one channel, without
speaking over each other. It keeps 38 bytes a frame: 14 MB an hour of speech.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from deployments.diarizer.cepstra import COEFFICIENTS, FRAME, HOP, cepstra
from deployments.diarizer.gaussians import (
    Cluster,
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
"""Samples whose cepstra are taken at once."""

SEGMENT = 150
"""Frames of a segment to begin with: 1.5 s."""

QUIET = 1e-3
"""A frame 30 dB below the loud ones says nothing of a voice."""

LEAST_SHARE = 0.08
"""Of the speech that a speaker must have, where nobody says how many there are."""

SHORTEST = 40
"""Frames that say enough of a voice to begin a cluster with."""

PART = 400
"""Segments that are clustered at once: ten minutes of speech."""

MOST_AT_FIRST = 10
"""Speakers that it begins with where nobody says more; then those are merged that are one."""

STEP = 10
"""Frames (100 ms) in which nobody changes."""

PASSES = 2
CHANGE = 120.0
"""Log-likelihood that a change of speaker must bring: about a second's worth."""


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
        """Nothing to end."""


class _Voice:
    """The voiced frames of a recording: their cepstra, and where they stand."""

    def __init__(self) -> None:
        import webrtcvad

        self._vad = webrtcvad.Vad(2)
        self._pcm = bytearray()
        self._at = 0
        self._frames: list[Any] = []
        self._places: list[Any] = []

    def push(self, pcm: bytes) -> bool:
        """Whether there is enough to `take`."""
        self._pcm += pcm
        return len(self._pcm) >= (BLOCK + FRAME) * BYTES_PER_SAMPLE

    def take(self, last: bool = False) -> None:
        """Blocks into cepstra, of frames that begin in a voiced 20 ms."""
        while len(self._pcm) >= (BLOCK + FRAME) * BYTES_PER_SAMPLE or (last and self._pcm):
            pcm = bytes(self._pcm[: (BLOCK + FRAME) * BYTES_PER_SAMPLE])
            del self._pcm[: BLOCK * BYTES_PER_SAMPLE]
            self._take(pcm)

    def _take(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        frames = cepstra(samples)[: BLOCK // HOP]
        flags = np.array(voiced(self._vad.is_speech, pcm), bool)
        said = flags.repeat(FRAME_SAMPLES // HOP)[: len(frames)]
        frames = frames[: len(said)]
        said &= audible(samples, len(said), said)
        self._frames.append(frames[said].astype(np.float16))
        self._places.append(np.flatnonzero(said).astype(np.int32) + self._at // HOP)
        self._at += BLOCK

    def heard(self) -> tuple[Any, Any]:
        """Voiced frames x coefficients, and each one's number in the recording."""
        if not self._frames:
            return np.zeros((0, COEFFICIENTS), np.float16), np.zeros(0, np.int32)
        return np.concatenate(self._frames), np.concatenate(self._places)


def audible(samples: Any, count: int, said: Any) -> Any:
    """Frames that are not much quieter than the loud ones: a VAD takes some silence along, and
    silence would be a speaker of its own."""
    level = np.square(samples[: count * HOP].reshape(count, HOP)).mean(axis=1)
    loud = np.percentile(level[said], 90) if said.any() else 0.0
    return level > loud * QUIET


def turns_of(voice: _Voice, speakers: SpeakerCount, enough: float) -> list[SpeakerTurn]:
    frames, places = voice.heard()
    segments = segments_of(places)
    clusters = [
        cluster_of(frames[begin:end], number)
        for number, (begin, end) in enumerate(segments)
        if end - begin >= SHORTEST
    ]
    if not clusters:
        return [SpeakerTurn(0, *_span(places, begin, end)) for begin, end in segments]
    found = _begin(clusters, max(speakers.least, min(speakers.most, MOST_AT_FIRST)))
    path, found = _refine(frames, found)
    while len(found) > speakers.least:
        separation, i, j = _least_apart(found)
        if separation >= enough and len(found) <= speakers.most:
            break
        rest = [it for number, it in enumerate(found) if number not in (i, j)]
        path, found = _refine(frames, [*rest, merge(found[i], found[j])])
    return _turns(path, places)


def _least_apart(found: list[Cluster]) -> tuple[float, int, int]:
    """The two that are most likely one, and by how much they are not: a speaker with little to
    say is taken for a part of another."""
    total = sum(it.frames for it in found)
    small = min(range(len(found)), key=lambda number: found[number].frames)
    if found[small].frames >= LEAST_SHARE * total:
        return closest(found)
    others = [number for number in range(len(found)) if number != small]
    pairs = [(closest([found[small], found[other]])[0], other) for other in others]
    return (0.0, small, min(pairs)[1])


def _refine(frames: Any, found: list[Cluster]) -> tuple[Any, list[Cluster]]:
    """Whose each frame is, and the speakers as their own frames have them; some may vanish."""
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


def segments_of(places: Any) -> list[tuple[int, int]]:
    """Runs of voiced frames without a gap of 200 ms, in pieces of about `SEGMENT`."""
    gaps = np.flatnonzero(np.diff(places) > 20) + 1
    borders = [0, *gaps.tolist(), len(places)]
    segments = []
    for begin, end in itertools.pairwise(borders):
        pieces = max(1, round((end - begin) / SEGMENT))
        cuts = np.linspace(begin, end, pieces + 1).astype(int).tolist()
        segments += [(a, b) for a, b in itertools.pairwise(cuts) if b > a]
    return segments


def _begin(clusters: list[Cluster], most: int) -> list[Cluster]:
    """Part by part, then the parts' clusters together."""
    while len(clusters) > PART:
        parts = [clusters[at : at + PART] for at in range(0, len(clusters), PART)]
        clusters = [it for part in parts for it in agglomerate(part, min(len(part), PART // 8))]
    return agglomerate(clusters, most)


def _turns(path: Any, places: Any) -> list[SpeakerTurn]:
    """Runs of one speaker; a gap of half a second ends one."""
    ends = np.flatnonzero((np.diff(path) != 0) | (np.diff(places) > 50)) + 1
    borders = [0, *ends.tolist(), len(path)]
    return [
        SpeakerTurn(int(path[begin]), *_span(places, begin, end))
        for begin, end in itertools.pairwise(borders)
        if end > begin
    ]


def _span(places: Any, begin: int, end: int) -> tuple[int, int]:
    return int(places[begin]) * HOP, (int(places[end - 1]) + 1) * HOP
