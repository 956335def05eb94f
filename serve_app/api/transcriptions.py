"""`POST /v1/audio/transcriptions`, `…/translations`: recordings as OpenAI's clients send them."""

import math
import zlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData

from deployments.interfaces import SpeakerTurn, SpeechOptions
from serve_app.api.backend import Backend
from serve_app.api.hang_up import while_connected
from serve_app.api.streamed import DONE, EVENT_STREAM, Streamed, begun, event, with_errors
from serve_app.api.uploads import Uploads, form_body
from serve_app.dialects.frames import token_usage
from serve_app.errors import ClientError, invalid
from serve_app.identity.principal import Caller
from serve_app.jobs.alignment import assign, label, segments, tidied
from serve_app.jobs.foreground import Recording, Recordings
from serve_app.live.driver import LiveSessions
from serve_app.live.options import EngineInfo, check_language, listed, noted, noted_header, unknown
from serve_app.live.transcript import Segment, WordOut, ms, render

BODY = form_body(
    {
        "model": {"type": "string"},
        "language": {"type": "string"},
        "response_format": {
            "enum": ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"]
        },
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"enum": ["word", "segment"]},
        },
        "include[]": {"type": "array", "items": {"enum": ["logprobs"]}},
        "stream": {"type": "boolean"},
    }
)
TEXT_FORMS = {"text": "txt", "srt": "srt", "vtt": "vtt"}
MIN_CONFIDENCE = 1e-10
"""The lowest confidence, so that its logarithm is finite."""


class TranscriptionAsked(BaseModel):
    """The form's fields except the file; those without effect are listed in `ignored`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    model: str = ""
    language: str | None = None
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"] = "json"
    granularities: list[Literal["word", "segment"]] = Field([], alias="timestamp_granularities[]")
    include: list[Literal["logprobs"]] = Field([], alias="include[]")
    temperature: float = Field(0.0, ge=0, le=1)
    chunking_strategy: str = "auto"
    stream: bool = False
    stream_include_usage: bool = False

    @classmethod
    def of(cls, form: FormData) -> "TranscriptionAsked":
        """Raises `ClientError`."""
        fields: dict[str, Any] = {name: value for name, value in form.items() if value != ""}
        for many in ("timestamp_granularities[]", "include[]"):
            values = form.getlist(many) or form.getlist(many.removesuffix("[]"))
            fields[many] = [value for value in values if value != ""]
            fields.pop(many.removesuffix("[]"), None)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise invalid(error, fields) from error

    @property
    def diarized(self) -> bool:
        return self.response_format == "diarized_json"

    def ignored(self, engine: EngineInfo) -> list[str]:
        """Fields that have no effect."""
        unused = {
            "language": not engine.takes(self.language),
            "temperature": self.temperature != 0,
            "chunking_strategy": self.chunking_strategy != "auto",
            "timestamp_granularities[]": self.granularities
            and (self.stream or self.response_format != "verbose_json"),
            "include[]": self.include and (self.stream or self.response_format != "json"),
            "response_format": self.stream
            and self.response_format not in ("json", "text", "diarized_json"),
        }
        named = [name for name, is_unused in unused.items() if is_unused]
        return listed([*named, *unknown(self.model_extra)])


def router(
    backend: Backend, sessions: LiveSessions, uploads: Uploads, recordings: Recordings
) -> APIRouter:
    routes = APIRouter(prefix="/v1/audio", tags=["transcriptions"])

    @routes.post("/transcriptions", openapi_extra=BODY)
    async def transcriptions(caller: Caller, request: Request) -> Response:
        """Transcribe an audio file (multipart, field `file`)."""
        async with AsyncExitStack() as held:
            path, form = await held.enter_async_context(uploads.received(request, caller))
            asked = TranscriptionAsked.of(form)
            engine = backend.engines.transcriber
            check_language(asked.language, engine)
            ignored = asked.ignored(engine)
            language = asked.language if engine.takes(asked.language) else None
            options = SpeechOptions(language, False, batch=True)
            found = await held.enter_async_context(recordings.open(path, sessions.limits, caller))
            if asked.stream:
                events = with_errors(
                    _events(found, options, asked, held.pop_all()),
                    DONE if asked.stream_include_usage else b"",
                )
                return Streamed(
                    await while_connected(request, begun(events)),
                    EVENT_STREAM,
                    noted_header(ignored),
                )
            await while_connected(request, found.transcribe(options))
            if asked.diarized:
                turns = await while_connected(request, found.turns())
                return _json(_diarized(found, turns), ignored)
        language = asked.language or found.language or _only_language(engine)
        return _rendered(asked, found, language, ignored)

    @routes.post("/translations")
    async def translations() -> Response:
        """Refused: no engine translates."""
        raise ClientError(
            "translation_unavailable",
            f"engine {backend.engines.transcriber.name} does not translate; use "
            "/v1/audio/transcriptions",
        )

    return routes


def _only_language(engine: EngineInfo) -> str:
    """The language of an engine that recognises only one, else ""."""
    languages = engine.languages or ()
    return languages[0] if len(languages) == 1 else ""


def _json(answer: dict[str, Any], ignored: list[str]) -> JSONResponse:
    return JSONResponse(answer | noted(ignored), headers=noted_header(ignored))


def _rendered(
    asked: TranscriptionAsked,
    found: Recording,
    language: str,
    ignored: list[str],
) -> Response:
    if asked.response_format in TEXT_FORMS:
        form: Any = TEXT_FORMS[asked.response_format]
        return PlainTextResponse(render(form, found.segments), headers=noted_header(ignored))
    text = found.text
    usage = {"type": "duration", "seconds": math.ceil(found.audio_ms / 1000)}
    if asked.response_format == "json":
        answer: dict[str, Any] = {"text": text, "usage": usage}
        if "logprobs" in asked.include:
            answer["logprobs"] = [_logprob(word) for word in found.words]
        return _json(answer, ignored)
    verbose = {
        "task": "transcribe",
        "duration": found.audio_ms / 1000,
        "language": language,
        "text": text,
        "usage": usage,
    }
    if "word" in asked.granularities:
        verbose["words"] = [_word(word) for word in found.words]
    if "segment" in asked.granularities or not asked.granularities:
        verbose["segments"] = [_segment(segment) for segment in found.segments]
    return _json(verbose, ignored)


def _word(word: WordOut) -> dict[str, Any]:
    return {"word": word.word, "start": word.start_ms / 1000, "end": word.end_ms / 1000}


def _logprob(word: WordOut) -> dict[str, Any]:
    """Of a word, because engines report no confidence of tokens."""
    logprob = round(math.log(max(word.confidence, MIN_CONFIDENCE)), 4)
    return {"token": word.word, "bytes": list(word.word.encode()), "logprob": logprob}


def _segment(segment: Segment) -> dict[str, Any]:
    """All fields that OpenAI's clients require; `tokens` is empty, because engines report none, and
    `no_speech_prob` is 0, because silence makes no segment."""
    raw = segment.text.encode()
    return {
        "id": segment.id,
        "seek": segment.start_ms // 10,
        "start": segment.start_ms / 1000,
        "end": segment.end_ms / 1000,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(segment.confidence, MIN_CONFIDENCE)), 4),
        "compression_ratio": round(len(raw) / max(1, len(zlib.compress(raw))), 4),
        "no_speech_prob": 0.0,
    }


def _diarized(found: Recording, turns: list[SpeakerTurn]) -> dict[str, Any]:
    return {
        "task": "transcribe",
        "duration": found.audio_ms / 1000,
        "text": found.text,
        "segments": _spoken(found, turns),
        "usage": {"type": "duration", "seconds": math.ceil(found.audio_ms / 1000)},
    }


def _spoken(found: Recording, turns: list[SpeakerTurn]) -> list[dict[str, Any]]:
    """Segments of one speaker each."""
    return [
        {
            "id": f"seg_{number}",
            "type": "transcript.text.segment",
            "start": ms(group[0].word.start) / 1000,
            "end": ms(group[-1].word.end) / 1000,
            "speaker": label(group[0].speaker) or label(0),
            "text": " ".join(it.word.text for it in group),
        }
        for number, group in enumerate(segments(assign(found.spoken, tidied(turns)), True))
    ]


async def _events(
    found: Recording,
    options: SpeechOptions,
    asked: TranscriptionAsked,
    held: AsyncExitStack,
) -> AsyncGenerator[bytes, None]:
    """A delta per window, as soon as its words are final; joined they are the text of the last
    event. The speakers are known only at the end; `transcript.text.segment` events come then."""
    text = ""
    async with held:
        async with aclosing(found.words_of(options)) as settled:
            async for words in settled:
                if delta := " ".join(word.text for word in words):
                    delta = (" " if text else "") + delta
                    text += delta
                    yield event(_delta(delta, asked.stream_include_usage))
        for spoken in _spoken(found, await found.turns()) if asked.diarized else ():
            yield event(spoken)
    yield event(_done(text, found.audio_ms, asked.stream_include_usage))


def _delta(delta: str, for_vllm: bool) -> dict[str, Any]:
    """vLLM's clients look for `choices`, OpenAI's for `delta`; each ignores the other."""
    shaped: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    if for_vllm:
        choice = {"index": 0, "delta": {"content": delta}, "finish_reason": None}
        shaped |= {"object": "transcription.chunk", "choices": [choice]}
    return shaped


def _done(text: str, audio_ms: int, for_vllm: bool) -> dict[str, Any]:
    usage = token_usage(audio_ms, text)
    shaped: dict[str, Any] = {"type": "transcript.text.done", "text": text, "usage": usage}
    if for_vllm:
        usage["prompt_tokens"] = usage["input_tokens"]
        usage["completion_tokens"] = usage["output_tokens"]
        shaped |= {"object": "transcription.chunk", "choices": []}
    return shaped
