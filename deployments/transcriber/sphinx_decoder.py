"""The process of one pocketsphinx decoder, which holds the GIL for up to a second at a time.

Run by `deployments.transcriber.pocketsphinx`. Requests come on stdin, answers go to stdout, both as
frames of typed msgpack; the process ends when stdin does, so it never outlives the replica. An
utterance is decoded in pieces for its partials, and once more as a whole for its final, which is
more accurate: streaming normalises the cepstra with the audio received so far.
"""

import os
import sys
from typing import Any, NamedTuple

import msgspec

from deployments.framing import frame, read_frame_from
from deployments.interfaces import RATE, SpeechOptions, Word

FRAME_SAMPLES = RATE // 100
"""A decoder's frame is 10 ms."""

NOISE = frozenset({"<s>", "</s>", "<sil>", "(NULL)", "[NOISE]", "[SPEECH]", "++NOISE++"})


class Piece(NamedTuple):
    """The next audio of the current utterance; `begin` starts one, `whole` ends it."""

    begin: SpeechOptions | None
    pcm: bytes
    whole: bytes | None


class DecoderAnswer(NamedTuple):
    words: tuple[Word, ...]
    failure: str | None = None


LONGEST_PIECE = 1 << 30
"""Bytes of one request: an utterance of nine hours."""

encode = msgspec.msgpack.Encoder().encode
decode_piece = msgspec.msgpack.Decoder(Piece).decode
decode_answer = msgspec.msgpack.Decoder(DecoderAnswer).decode


class UnusableOptions(Exception):
    """The grammar does not parse, or a hotword is not in the dictionary."""


class SphinxDecoder:
    """Decodes one utterance after another; needs pocketsphinx and 91 MB."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._open_decoder = Decoder(samprate=RATE, loglevel="FATAL")
        self._closed_decoder: Any = None
        self._closed_search: str | None = None
        self._new_decoder = lambda: Decoder(samprate=RATE, loglevel="FATAL", lm=None)
        self._decoder = self._open_decoder
        self._streaming = False

    def answer(self, piece: Piece) -> DecoderAnswer:
        try:
            if piece.begin is not None:
                self._begin(piece.begin)
        except UnusableOptions as unusable:
            return DecoderAnswer((), str(unusable))
        return self._continue(piece)

    def _begin(self, options: SpeechOptions) -> None:
        self._decoder = self._decoder_for(options)
        self._streaming = options.interim_results
        if self._streaming:
            self._start(self._decoder)

    def _continue(self, piece: Piece) -> DecoderAnswer:
        if self._streaming and piece.pcm:
            self._decoder.process_raw(piece.pcm)
        if piece.whole is None:
            return DecoderAnswer(self._words())
        if self._streaming:
            self._decoder.end_utt()
        return DecoderAnswer(self._decode(piece.whole))

    def _decode(self, whole: bytes) -> tuple[Word, ...]:
        if not whole:  # pocketsphinx raises on no samples
            return ()
        self._start(self._decoder)
        self._decoder.process_raw(whole, full_utt=True)
        self._decoder.end_utt()
        return self._words()

    def _start(self, decoder: Any) -> None:
        decoder.reinit_feat()  # drops the noise and cepstral means of the last utterance
        decoder.start_utt()

    def _decoder_for(self, options: SpeechOptions) -> Any:
        """The decoder for the full vocabulary, or a second (28 MB) for a grammar or hotwords."""
        if not (options.hotwords or options.grammar):
            return self._open_decoder
        grammar = options.grammar or jsgf(options.hotwords)
        if grammar != self._closed_search:
            self._closed_decoder = self._new_decoder()  # type: ignore[no-untyped-call]
            self._activate(grammar)
            self._closed_search = grammar
        return self._closed_decoder

    def _activate(self, grammar: str) -> None:
        try:
            self._closed_decoder.add_jsgf_string("asked", grammar)
            self._closed_decoder.activate_search("asked")
        except Exception as error:  # pocketsphinx raises RuntimeError and ValueError alike
            self._closed_search = None
            raise UnusableOptions(
                "the grammar is not valid JSGF, or has words that are not in the dictionary"
            ) from error

    def _words(self) -> tuple[Word, ...]:
        segments = self._decoder.seg() if self._decoder.hyp() else ()
        return tuple(
            Word(
                segment.word.split("(")[0],  # "the(2)" is the second pronunciation of "the"
                segment.start_frame * FRAME_SAMPLES,
                (segment.end_frame + 1) * FRAME_SAMPLES,
                min(1.0, max(0.0, segment.prob)),
            )
            for segment in segments or ()
            if segment.word not in NOISE
        )


def jsgf(hotwords: tuple[str, ...]) -> str:
    """A grammar that accepts any sequence of the given phrases, and nothing else."""
    phrases = " | ".join(f"( {phrase.lower()} )" for phrase in hotwords)
    return f"#JSGF V1.0; grammar hotwords; public <phrases> = ( {phrases} )+ ;"


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the JSGF parser echoes what it rejects
    decoder = SphinxDecoder()
    answers.write(frame(b"ready"))
    answers.flush()
    while (request := read_frame_from(sys.stdin.buffer, LONGEST_PIECE)) is not None:
        answers.write(frame(encode(decoder.answer(decode_piece(request)))))
        answers.flush()
