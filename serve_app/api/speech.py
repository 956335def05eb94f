"""`POST /v1/audio/speech` and `GET /v1/audio/voices`: speech for OpenAI's clients."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from deployments.encoding import MEDIA_TYPES, Encoder, SpeechFormat
from deployments.interfaces import Option
from deployments.speaker.clauses import ClauseSplitter, speakable
from serve_app.api.backend import Backend
from serve_app.api.hang_up import while_connected
from serve_app.api.streamed import EVENT_STREAM, Streamed, begun, event, with_errors
from serve_app.conversation.driver import Conversations
from serve_app.dialects.realtime_shapes import VoiceId
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal
from serve_app.live.options import EngineInfo, listed, noted, noted_header, unknown, unsupported
from serve_app.observability.tracing import current, traceparent
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.usage.meter import Counted

RAW = ("wav", "pcm")
"""Formats that need no encoder; the others are encoded in a thread."""


class SpeechAsked(BaseModel):
    """Other fields have no effect and are listed in the header `x-voxray-ignored`."""

    model_config = ConfigDict(extra="allow", strict=True)

    input: str
    model: str = ""
    voice: str | VoiceId | None = None
    response_format: SpeechFormat = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    style: str | None = None
    """An emotion for which the configuration has a voice; it overrides `voice`."""
    instructions: str | None = None
    stream_format: Literal["audio", "sse"] = "audio"

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


def router(backend: Backend, conversations: Conversations, limit: ConcurrencyLimit) -> APIRouter:
    routes = APIRouter(prefix="/v1/audio", tags=["speech"])
    max_chars = conversations.sessions.limits.max_speech_chars

    @routes.post("/speech", response_class=Response)
    async def speech(caller: Caller, request: Request, asked: SpeechAsked) -> Response:
        """Speak a text. The audio is sent clause by clause, as it is produced."""
        ignored = listed(_ignored(asked, backend.engines.speaker))
        clauses = _clauses(asked.input, max_chars)
        voice = conversations.voices.resolve(asked.voice_name, asked.style)
        sounds = _sounds(conversations, clauses, voice, asked.speed, caller)
        audio = _encoded(sounds, asked.response_format, limit.slot(caller.tenant))
        if asked.stream_format == "sse":
            events = with_errors(_events(audio, clauses, ignored))
            return Streamed(
                await while_connected(request, begun(events)), EVENT_STREAM, noted_header(ignored)
            )
        kind = MEDIA_TYPES[asked.response_format]
        return Streamed(await while_connected(request, begun(audio)), kind, noted_header(ignored))

    @routes.get("/voices")
    async def voices(language: str | None = None) -> dict[str, Any]:
        """Every voice with its language and gender, aliases of voices, the default voice, what the
        engine can do (`speed`, `blend`), and the formats of speech. `language` is a BCP 47 tag or
        its beginning."""
        wanted = (language or "").lower()
        listed = [
            voice._asdict()
            for voice in conversations.voices.all
            if not wanted or voice.language == wanted or voice.language.startswith(f"{wanted}-")
        ]
        return {
            "voices": listed,
            "aliases": conversations.voices.aliases,
            "styles": conversations.voices.styles,
            "default": conversations.voices.default,
            "options": sorted(backend.engines.speaker.options),
            "formats": list(MEDIA_TYPES),
        }

    return routes


def _ignored(asked: SpeechAsked, engine: EngineInfo) -> list[str]:
    """Raises `ClientError` for a speed that the engine does not support."""
    if asked.speed != 1 and Option.SPEED not in engine.options:
        raise unsupported("speed", engine)
    more = unknown(asked.model_extra)
    return ["instructions", *more] if asked.instructions else more


def _clauses(text: str, max_chars: int) -> list[str]:
    if len(text) > max_chars:
        raise ClientError(
            "text_too_long",
            f"input has {len(text)} characters; at most {max_chars} are allowed",
            param="input",
        )
    splitter = ClauseSplitter()
    clauses = [speakable(clause) for clause in (*splitter.push(text), *splitter.flush())]
    spoken = [clause for clause in clauses if clause]
    if not spoken:
        raise ClientError("invalid_value", "input contains no words to speak", param="input")
    return spoken


async def _sounds(
    conversations: Conversations, clauses: list[str], voice: str, speed: float, caller: Principal
) -> AsyncIterator[bytes]:
    trace = traceparent(current())
    with conversations.limiter.quota(caller, Counted.CHARACTERS, sum(map(len, clauses))):
        for number, clause in enumerate(clauses):
            request = (clause, voice, speed, number)
            asked = conversations.speaker.stream(*request, caller=caller, trace=trace)
            async with aclosing(asked) as sounds:  # type: ignore[type-var]
                async for sound in sounds:
                    if sound.pcm:
                        yield sound.pcm


async def _encoded(
    sounds: AsyncIterator[bytes], format_: SpeechFormat, slot: AbstractContextManager[None]
) -> AsyncGenerator[bytes, None]:
    with slot:
        async with aclosing(sounds) as pieces:  # type: ignore[type-var]
            encoder = Encoder(format_)
            async for pcm in pieces:
                raw = format_ in RAW
                audio = encoder.push(pcm) if raw else await asyncio.to_thread(encoder.push, pcm)
                if audio:
                    yield audio
            if rest := encoder.finish():
                yield rest


async def _events(
    audio: AsyncGenerator[bytes, None], clauses: list[str], ignored: list[str]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(audio) as pieces:
        async for piece in pieces:
            encoded = base64.b64encode(piece).decode()
            yield event({"type": "speech.audio.delta", "audio": encoded})
    words = sum(len(clause.split()) for clause in clauses)
    usage = {"input_tokens": words, "output_tokens": 0, "total_tokens": words}
    yield event({"type": "speech.audio.done", "usage": usage, **noted(ignored)})
