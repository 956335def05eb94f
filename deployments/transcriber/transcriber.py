"""Lanes in front of an engine: batches up, guesses down. Knows no engine by name."""

from collections.abc import AsyncIterator, Hashable, Sequence
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
from deployments.once import Once
from deployments.outbox import Outbox

Key = tuple[str, int, int]
"""Lane, session, utterance."""


class _Lane:
    """What waits to go down a lane, and the sessions that ride it with their options."""

    def __init__(self) -> None:
        self.options: dict[int, SpeechOptions] = {}
        self.open: dict[int, set[int]] = {}
        self.out: Outbox[Hypothesis] = Outbox()


class Transcriber:
    """Implements `interfaces.Transcriber` with any `TranscriberEngine`.

    The bound on what waits in a lane is the sessions that ride it: each has at most a few
    utterances open, and its ingress bounds its audio.
    """

    def __init__(self, engine: TranscriberEngine) -> None:
        self._engine = engine
        self._lanes: dict[str, _Lane] = {}
        self._load = Once(lambda: engine.start(self._emit))

    async def start(self) -> None:
        """Load the engine, once; raises what the engine raises when it cannot load."""
        await self._load()

    async def listen(self, lane: str) -> AsyncIterator[list[Hypothesis]]:
        """Open a lane and stream its hypotheses; the first item is empty and says: open.

        The lane, and all its sessions' work, ends with this stream.
        """
        await self.start()
        here = self._lanes[lane] = _Lane()
        try:
            yield []
            while True:
                yield await here.out.take()
        finally:
            del self._lanes[lane]
            await self._forget(lane, here, list(here.open))

    async def exchange(self, lane: str, batch: Sequence[Speech], left: Sequence[int]) -> None:
        """Take audio of many sessions, and the news that some have left.

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
