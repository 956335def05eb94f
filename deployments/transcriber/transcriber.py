"""Lanes in front of an engine: batches of audio in, hypotheses out. Independent of the engine."""

import time
from collections.abc import Sequence
from typing import Any, cast

from deployments.interfaces import (
    EngineHypothesis,
    Hypothesis,
    Prompt,
    Queued,
    Speech,
    SpeechOptions,
    TranscriberEngine,
    Utterance,
    UtteranceKey,
)
from deployments.lanes import Lane, LaneModel


class _Session:
    """A session's latest options, and its utterances without a final."""

    def __init__(self) -> None:
        self.options = SpeechOptions()
        self.open: set[UtteranceKey] = set()


Here = Lane[_Session, Hypothesis]


class Transcriber(LaneModel[Speech, _Session, Hypothesis]):
    """Any `TranscriberEngine`.

    The number of sessions bounds what waits in a lane: each has at most a few open utterances, and
    its ingress bounds their audio.
    """

    def __init__(self, engine: TranscriberEngine) -> None:
        super().__init__(lambda: engine.start(self._emit), engine.stop)
        self._engine = engine
        self._owed: set[UtteranceKey] = set()
        """Utterances that have ended and have no final."""
        self._moved_at = 0.0
        """When the engine last answered, or began to owe."""
        self._stall_s = engine.stall_s if isinstance(engine, Prompt) else float("inf")

    def waiting(self) -> int:
        """See `Queued`."""
        return self._engine.waiting() if isinstance(self._engine, Queued) else 0

    def stalled(self) -> bool:
        """See `Prompt`."""
        return bool(self._owed) and time.monotonic() - self._moved_at > self._stall_s

    async def take(self, here: Here, batch: Sequence[Speech]) -> Sequence[Hypothesis]:
        """Raises `LaneLost` for audio of a session that did not begin in this lane."""
        if batch:
            utterances = [_utterance(here, piece) for piece in batch]
            self._owe([utterance.key for utterance in utterances if utterance.ended])
            await self._engine.feed(utterances)
        return ()

    def _owe(self, ended: Sequence[Any]) -> None:
        if ended and not self._owed:
            self._moved_at = time.monotonic()
        self._owed.update(ended)

    async def drop(self, work: Sequence[_Session]) -> None:
        if keys := [key for session in work for key in session.open]:
            self._owed.difference_update(keys)
            await self._engine.forget(keys)

    def _emit(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        self._moved_at = time.monotonic()
        for hypothesis in hypotheses:
            lane, number, utterance, _ = key = cast(UtteranceKey, hypothesis.key)
            if hypothesis.final:
                self._owed.discard(key)
            here = self._lanes.get(lane)
            session = here and here.sessions.get(number)
            if not here or not session:
                continue
            if hypothesis.final:
                session.open.discard(key)
            here.out.put(Hypothesis(number, utterance, *hypothesis[1:]))


def _utterance(here: Here, piece: Speech) -> Utterance:
    number, utterance, pcm, ended, options = piece
    key = UtteranceKey(here.name, number, utterance, here.payer(number))
    if options is not None:
        session = here.sessions.setdefault(number, _Session())
        session.options = options
        session.open.add(key)
    return Utterance(key, pcm, ended, here.work(number).options)
