"""The engine that docs/engines.md shows: the minimum that a real model needs."""

from collections.abc import Hashable, Sequence

from deployments.interfaces import Emit, EngineHypothesis, Options, Utterance, Word


class Shout:
    """Hears the same word in every utterance, and says it loudly."""

    name = "shout"
    languages: tuple[str, ...] | None = None
    revises = False
    options: Options = frozenset()

    def __init__(self, word: str = "hey") -> None:
        self._word = word.upper()
        self._heard: dict[Hashable, int] = {}

    async def start(self, emit: Emit) -> None:
        self._emit = emit

    async def feed(self, batch: Sequence[Utterance]) -> None:
        for key, pcm, ended, _options in batch:
            samples = self._heard.pop(key, 0) + len(pcm) // 2
            if not ended:
                self._heard[key] = samples
            self._emit(
                [EngineHypothesis(key, samples, (Word(self._word, 0, samples, 1.0),), ended)]
            )

    async def forget(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            self._heard.pop(key, None)

    async def stop(self) -> None:
        self._heard.clear()
