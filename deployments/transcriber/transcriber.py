"""Lanes in front of an engine: batches of audio in, hypotheses out. Independent of the engine."""

from collections.abc import Sequence
from typing import cast

from deployments.interfaces import (
    EngineHypothesis,
    Hypothesis,
    Speech,
    SpeechOptions,
    TranscriberEngine,
    Utterance,
)
from deployments.lanes import Lane, LaneModel

Key = tuple[str, int, int]
"""Lane, session, utterance."""


class _Session:
    """A session's latest options, and its utterances without a final."""

    def __init__(self) -> None:
        self.options = SpeechOptions()
        self.open: set[Key] = set()


Here = Lane[_Session, Hypothesis]


class Transcriber(LaneModel[Speech, _Session, Hypothesis]):
    """Any `TranscriberEngine`.

    The number of sessions bounds what waits in a lane: each has at most a few open utterances, and
    its ingress bounds their audio.
    """

    def __init__(self, engine: TranscriberEngine) -> None:
        super().__init__(lambda: engine.start(self._emit), engine.stop)
        self._engine = engine

    async def take(self, here: Here, batch: Sequence[Speech]) -> Sequence[Hypothesis]:
        """Raises `LaneLost` for audio of a session that did not begin in this lane."""
        if batch:
            await self._engine.feed([_utterance(here, piece) for piece in batch])
        return ()

    async def drop(self, work: Sequence[_Session]) -> None:
        if keys := [key for session in work for key in session.open]:
            await self._engine.forget(keys)

    def _emit(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        for hypothesis in hypotheses:
            lane, number, utterance = key = cast(Key, hypothesis.key)
            here = self._lanes.get(lane)
            session = here and here.sessions.get(number)
            if not here or not session:
                continue
            if hypothesis.final:
                session.open.discard(key)
            here.out.put(Hypothesis(number, utterance, *hypothesis[1:]))


def _utterance(here: Here, piece: Speech) -> Utterance:
    number, utterance, pcm, ended, options = piece
    key = (here.name, number, utterance)
    if options is not None:
        session = here.sessions.setdefault(number, _Session())
        session.options = options
        session.open.add(key)
    return Utterance(key, pcm, ended, here.work(number).options)
