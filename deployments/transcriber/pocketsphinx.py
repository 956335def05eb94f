"""The embedded engine: pocketsphinx decoders, each in a separate process.

An utterance has a decoder from its start to its final, so no session waits for another's decoding
while there are enough decoders. When more people speak at once, utterances queue, and the tenant
that has had the least goes first; no audio is lost.
"""

import asyncio
import logging
from collections.abc import Hashable, Sequence

import msgspec

from deployments.child import Child
from deployments.fair_slots import FairSlots
from deployments.framing import frame
from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    ENGINE_FAILED,
    RATE,
    Emit,
    EngineFailed,
    EngineHypothesis,
    Option,
    SpeechOptions,
    Utterance,
    payer_of,
)
from deployments.transcriber.sphinx_decoder import DecoderAnswer, Piece, decode_answer, encode

log = logging.getLogger("voxray.pocketsphinx")

START_TIMEOUT_S = 60.0


class _Process:
    """A decoder process: one request at a time."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.stop = child.stop

    @classmethod
    async def start(cls, gives_way: bool) -> "_Process":
        module = "deployments.transcriber.sphinx_decoder"
        child, _ = await Child.start("pocketsphinx decoder", module, START_TIMEOUT_S, gives_way)
        return cls(child)

    async def ask(self, piece: Piece) -> DecoderAnswer:
        """Raises `EngineFailed` when the process has ended or its answer is not valid."""
        await self._child.write(frame(encode(piece)))
        try:
            return decode_answer(await self._child.read())
        except msgspec.MsgspecError as error:
            raise EngineFailed("the pocketsphinx decoder process sent an invalid answer") from error


class _Utterance:
    """All audio of an utterance: for its final, and for a second decoder if the first one dies."""

    def __init__(self, options: SpeechOptions) -> None:
        self.options = options
        self.pcm = bytearray()
        self.ended = False
        self.begun = False
        self.more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class _Pool:
    """Decoder processes, started when first needed, and the slots that limit their use."""

    def __init__(self, decoders: int, gives_way: bool) -> None:
        self.slots = FairSlots(decoders)
        self._gives_way = gives_way
        self._free: list[_Process] = []

    async def take(self) -> _Process:
        return self._free.pop() if self._free else await self.start()

    async def start(self) -> _Process:
        return await _Process.start(self._gives_way)

    def give(self, process: _Process) -> None:
        self._free.append(process)

    async def stop(self) -> None:
        for process in self._free:
            await process.stop()
        self._free.clear()


class PocketSphinx:
    """At most `decoders` processes for live speech, one of them started at once, and at most
    `batch_decoders` for recordings, which run when the CPU has nothing else to do."""

    name = "pocketsphinx"
    languages: tuple[str, ...] | None = ("en",)
    revises = True  # a final is decoded again from the whole utterance
    options = frozenset({Option.LANGUAGE, Option.HOTWORDS, Option.GRAMMAR})

    def __init__(self, decoders: int, batch_decoders: int = 2) -> None:
        self._live = _Pool(decoders, False)
        self._batch = _Pool(batch_decoders, True)
        self._utterances: dict[Hashable, _Utterance] = {}
        self._decoding: set[asyncio.Task[None]] = set()
        """Of all utterances, and of those forgotten whose process is still on its way out."""

    async def start(self, emit: Emit) -> None:
        self._emit = emit
        self._live.give(await self._live.take())

    async def feed(self, batch: Sequence[Utterance]) -> None:
        for key, pcm, ended, options in batch:
            utterance = self._utterances.get(key)
            if utterance is None:
                utterance = self._utterances[key] = _Utterance(options)
                utterance.task = asyncio.create_task(self._decode(key, utterance))
                self._decoding.add(utterance.task)
                utterance.task.add_done_callback(self._decoding.discard)
            utterance.pcm += pcm
            utterance.ended = ended
            if ended or options.interim_results:
                utterance.more.set()

    async def forget(self, keys: Sequence[Hashable]) -> None:
        tasks = [u.task for key in keys if (u := self._utterances.pop(key, None)) and u.task]
        for task in tasks:
            task.cancel()

    def waiting(self) -> int:
        """Utterances without a decoder."""
        return sum(not utterance.begun for utterance in self._utterances.values())

    async def stop(self) -> None:
        await self.forget(list(self._utterances))
        await asyncio.gather(*self._decoding, return_exceptions=True)
        await self._live.stop()
        await self._batch.stop()

    async def _decode(self, key: Hashable, utterance: _Utterance) -> None:
        """Owned by `_decoding`; ends with the final, or with `forget`."""
        pool = self._batch if utterance.options.batch else self._live
        payer = payer_of(key)
        async with pool.slots.slot(payer):
            utterance.begun = True
            try:
                await self._use(await pool.take(), pool, key, utterance)
            except EngineFailed:
                await self._again(pool, key, utterance)
            except Exception:  # nothing else reports it, and the client would wait forever
                log.exception("recognition_failed")
                await self._fail(key, utterance, ENGINE_FAILED)
            finally:
                pool.slots.charge(payer, len(utterance.pcm) / (BYTES_PER_SAMPLE * RATE))

    async def _again(self, pool: _Pool, key: Hashable, utterance: _Utterance) -> None:
        """Tries once more, with a new process, because free ones may have died as well. Audio that
        kills two decoders would kill a third."""
        try:
            await self._use(await pool.start(), pool, key, utterance)
        except EngineFailed as failed:
            await self._fail(key, utterance, str(failed))

    async def _use(
        self, process: _Process, pool: _Pool, key: Hashable, utterance: _Utterance
    ) -> None:
        try:
            failure = await self._stream(process, key, utterance)
        except BaseException:
            await process.stop()  # its output is out of step in the middle of an answer
            raise
        pool.give(process)
        if failure:
            await self._fail(key, utterance, failure)

    async def _stream(self, process: _Process, key: Hashable, utterance: _Utterance) -> str | None:
        begin: SpeechOptions | None = utterance.options
        fed = 0
        utterance.more.set()
        while True:
            await utterance.more.wait()
            utterance.more.clear()
            piece, ended = bytes(utterance.pcm[fed:]), utterance.ended
            answer = await process.ask(Piece(begin, piece, bytes(utterance.pcm) if ended else None))
            if answer.failure:
                return answer.failure
            begin = None
            fed += len(piece)
            self._emit_words(key, fed, answer, ended)
            if ended:
                return None

    def _emit_words(self, key: Hashable, fed: int, answer: DecoderAnswer, final: bool) -> None:
        if final:
            self._utterances.pop(key, None)
        self._emit([EngineHypothesis(key, fed // BYTES_PER_SAMPLE, answer.words, final)])

    async def _fail(self, key: Hashable, utterance: _Utterance, reason: str) -> None:
        """Report it when the utterance has ended; until then its audio still arrives."""
        while not utterance.ended:
            utterance.more.clear()
            await utterance.more.wait()
        self._utterances.pop(key, None)
        self._emit(
            [EngineHypothesis(key, len(utterance.pcm) // BYTES_PER_SAMPLE, (), True, 0, reason)]
        )
