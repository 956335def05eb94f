"""Lanes in front of an engine: batches of audio in, hypotheses out. Independent of the engine."""

from collections.abc import Hashable, Sequence
from typing import cast

from deployments.interfaces import (
    EngineHypothesis,
    Hypothesis,
    LaneLost,
    Speech,
    SpeechOptions,
    TranscriberEngine,
    Utterance,
)
from deployments.lanes import LaneModel
from deployments.outbox import Outbox

Key = tuple[str, int, int]
"""Lane, session, utterance."""


class _Lane:
    """A lane's waiting hypotheses, and its sessions with their options."""

    def __init__(self) -> None:
        self.options: dict[int, SpeechOptions] = {}
        self.open: dict[int, set[int]] = {}
        self.out: Outbox[Hypothesis] = Outbox()


class Transcriber(LaneModel[_Lane]):
    """Implements `interfaces.Transcriber` with any `TranscriberEngine`.

    The number of sessions bounds what waits in a lane: each has at most a few open utterances, and
    its ingress bounds their audio.
    """

    def __init__(self, engine: TranscriberEngine) -> None:
        super().__init__()
        self._engine = engine

    async def load(self) -> None:
        await self._engine.start(self._emit)

    def new_lane(self) -> _Lane:
        return _Lane()

    async def close_lane(self, name: str, lane: _Lane) -> None:
        await self._forget(name, lane, list(lane.open))

    async def exchange(self, lane: str, batch: Sequence[Speech], left: Sequence[int]) -> None:
        """Take audio of many sessions, and forget those that have left.

        Raises `LaneLost` for audio of a session that did not begin in this lane.
        """
        here = self._lanes[lane]
        await self._forget(lane, here, left)
        if batch:
            await self._engine.feed([self._utterance(lane, here, piece) for piece in batch])

    async def stop(self) -> None:
        await self._engine.stop()

    def _utterance(self, lane: str, here: _Lane, piece: Speech) -> Utterance:
        session, utterance, pcm, ended, options = piece
        if options is not None:
            here.options[session] = options
            here.open.setdefault(session, set()).add(utterance)
        elif session not in here.options:
            raise LaneLost(f"session {session} did not begin here")
        return Utterance((lane, session, utterance), pcm, ended, here.options[session])

    async def _forget(self, lane: str, here: _Lane, sessions: Sequence[int]) -> None:
        keys: list[Hashable] = []
        for session in sessions:
            here.options.pop(session, None)
            keys += [(lane, session, utterance) for utterance in here.open.pop(session, ())]
        if keys:
            await self._engine.forget(keys)

    def _emit(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        for hypothesis in hypotheses:
            lane, session, utterance = cast(Key, hypothesis.key)
            here = self._lanes.get(lane)
            if here is None or session not in here.open:
                continue
            if hypothesis.final:
                here.open[session].discard(utterance)
            here.out.put(Hypothesis(session, utterance, *hypothesis[1:]))
