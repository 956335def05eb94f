"""Transcribes windows of recordings over lanes: many in parallel, on all Transcriber replicas."""

import asyncio
import copy
from collections.abc import Awaitable, Callable

from deployments.fairness import NOBODY, Payer
from deployments.interfaces import Hypothesis, SpeechOptions, Word
from serve_app.errors import ClientError
from serve_app.lanes.lane import LaneStream
from serve_app.lanes.pool import LanePool

MOST_LANES = 64


class TranscriptionFailed(Exception):
    """The engine failed; a retry may succeed. `code` is one of the API's error codes."""

    def __init__(self, message: str, code: str = "utterance_failed") -> None:
        super().__init__(message)
        self.code = code


class _Window:
    """One window as a stream on a lane: one utterance, sent to another replica if its
    replica is lost."""

    def __init__(self, lanes: LanePool, pcm: bytes, options: SpeechOptions, payer: Payer) -> None:
        self._pcm = pcm
        self._options = options
        self._words: list[Word] = []
        self.answer: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        self._stream = LaneStream(lanes, self, payer, batch=True)
        lanes.attach(self._stream)

    def attached(self) -> None:
        if not self.answer.done():
            self._words.clear()
            self._stream.put((0, self._pcm, True, self._options), urgent=True)

    def unserved(self) -> None:
        """It waits, for `timeout_s` at most."""

    def answered(self, answer: Hypothesis) -> None:
        if self.answer.done():
            return
        self._words[answer.keep :] = answer.words
        if answer.failure is not None:
            self.answer.set_exception(TranscriptionFailed(answer.failure))
        elif answer.final:
            self.answer.set_result(answer._replace(words=tuple(self._words)))

    def busy(self) -> bool:
        return not self.answer.done()

    def quarantined(self) -> None:
        if not self.answer.done():
            reason = "a window of this recording crashed the engine twice"
            self.answer.set_exception(ClientError("request_quarantined", reason))

    def leave(self) -> None:
        self._stream.leave()


async def _at_once() -> None:
    """Nothing to wait for."""


class Recogniser:
    """Transcribes windows of recordings, each once `its_turn` has come."""

    def __init__(
        self,
        lanes: LanePool,
        windows_at_once: int,
        timeout_s: float,
        its_turn: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self._lanes = lanes
        self._windows_at_once = windows_at_once
        self._timeout_s = timeout_s
        self._its_turn = its_turn
        self._payer = NOBODY

    def of(self, payer: Payer) -> "Recogniser":
        """The same, for the recordings of one tenant."""
        its = copy.copy(self)
        its._payer = payer
        return its

    @property
    def parallel_windows(self) -> int:
        """Windows of one recording that may be transcribed in parallel now."""
        return self._windows_at_once * min(MOST_LANES, max(1, self._lanes.count))

    async def transcribe(self, pcm: bytes, options: SpeechOptions) -> Hypothesis:
        """The final of 16 kHz mono pcm. Cancelling it stops the model.

        Raises `TranscriptionFailed` if the engine fails or sends no answer within the timeout,
        `ClientError` if the audio crashed it twice.
        """
        await self._its_turn()
        window = _Window(self._lanes, pcm, options, self._payer)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await window.answer
        except TimeoutError as error:
            reason = f"the engine sent no answer for {self._timeout_s:g} s"
            raise TranscriptionFailed(reason, "engine_timeout") from error
        finally:
            window.leave()
