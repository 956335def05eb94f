"""The open utterances of an engine: their audio, and one task and one final for each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from deployments.audio import pcm_to_float
from deployments.fairness import PAYER
from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    ENGINE_FAILED,
    Emit,
    EngineDied,
    EngineFailed,
    EngineHypothesis,
    SpeechOptions,
    Utterance,
    payer_of,
)

log = logging.getLogger("voxray.utterances")


class UtteranceAudio:
    """An utterance's audio from sample `base` on; the engine no longer needs what came before."""

    def __init__(self, options: SpeechOptions) -> None:
        self.options = options
        self.base = 0
        self.ended = False
        self._pcm = bytearray()
        self._more = asyncio.Event()

    @property
    def samples(self) -> int:
        """Samples received, including dropped ones."""
        return self.base + len(self._pcm) // BYTES_PER_SAMPLE

    def add(self, pcm: bytes, ended: bool) -> None:
        self._pcm += pcm
        self.ended = ended
        self._more.set()
        self._more = asyncio.Event()

    def audio(self, start: int, end: int) -> Any:
        """float32 samples from `start` to `end`."""
        first = (start - self.base) * BYTES_PER_SAMPLE
        return pcm_to_float(self._pcm[first : (end - self.base) * BYTES_PER_SAMPLE])

    def drop_before(self, sample: int) -> None:
        del self._pcm[: (sample - self.base) * BYTES_PER_SAMPLE]
        self.base = sample

    async def until(self, samples: int | None) -> None:
        """Wait for this number of samples, or for the end; None: for the end."""
        while not self.ended and (samples is None or self.samples < samples):
            await self._more.wait()


U = TypeVar("U", bound=UtteranceAudio)


class Utterances(Generic[U]):
    """`recognise` returns the final of an utterance and calls `emit` with its partials.

    When it raises, the final has a `failure`, after the utterance has ended. Nothing is emitted for
    an engine that died, because its sessions move to another replica.
    """

    def __init__(
        self,
        new: Callable[[SpeechOptions], U],
        recognise: Callable[[Hashable, U], Awaitable[EngineHypothesis]],
    ) -> None:
        self._new = new
        self._recognise = recognise
        self._open: dict[Hashable, tuple[U, asyncio.Task[None]]] = {}
        self.emit: Emit = lambda hypotheses: None

    async def feed(self, batch: Sequence[Utterance]) -> None:
        for key, pcm, ended, options in batch:
            if key not in self._open:
                utterance = self._new(options)
                self._open[key] = utterance, asyncio.create_task(self._run(key, utterance))
            self._open[key][0].add(pcm, ended)

    async def forget(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            if key in self._open:
                self._open.pop(key)[1].cancel()

    async def stop(self) -> None:
        await self.forget(list(self._open))

    async def _run(self, key: Hashable, utterance: U) -> None:
        """Owned by `_open`; ends with the final, or with `forget`."""
        PAYER.set(payer_of(key))
        try:
            final = await self._recognise(key, utterance)
        except EngineDied:
            return
        except EngineFailed as failed:
            final = EngineHypothesis(key, 0, (), True, 0, str(failed))
        except Exception:  # nothing else reports it, and the client would wait forever
            log.exception("recognition_failed")
            final = EngineHypothesis(key, 0, (), True, 0, ENGINE_FAILED)
        await utterance.until(None)
        self._open.pop(key, None)
        self.emit([final._replace(until=utterance.samples)])
