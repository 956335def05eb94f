"""The `response.*` events of the OpenAI Realtime dialect. Pure."""

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from deployments.audio import OutputConverter
from serve_app.conversation.events import (
    ReplyAudioDelta,
    ReplyCallDelta,
    ReplyEnded,
    ReplyItemAdded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyTextDelta,
)
from serve_app.dialects.frames import AUDIO_TOKEN_MS, Frame
from serve_app.dialects.realtime_items import render_item
from serve_app.dialects.realtime_shapes import Format, encoding
from serve_app.dialects.realtime_writer import EventWriter
from serve_app.live.options import noted


class _Message(NamedTuple):
    """The current reply's message."""

    number: int
    """Among the reply's items."""
    spoken: bool


class ReplyEvents:
    """Renders the replies of one connection."""

    def __init__(self, write: EventWriter, prefix: str, format_: Format) -> None:
        self._write = write
        self._prefix = prefix
        self._format = format_
        self._converter = _converter(format_)
        self._message = _Message(0, True)
        self.rate_limits: Callable[[], list[Frame]] = lambda: []
        """The limits of the session's tenant, and what is left of them."""

    def change_format(self, format_: Format) -> None:
        if format_ != self._format:
            self._format = format_
            self._converter = _converter(format_)

    def number(self, response_id: str | None) -> int | None:
        """The reply with this id; -1 if there is none."""
        if response_id is None:
            return None
        number = response_id.removeprefix(f"resp_{self._prefix}")
        return int(number) if number.isdecimal() and len(number) < 19 else -1

    def render(self, event: Any) -> list[bytes]:
        ids: Frame = {"response_id": self._id(event.reply)}
        match event:
            case ReplyStarted():
                return [self._write("response.created", response=self._response(event))]
            case ReplyItemAdded():
                return self._item_added(event, ids)
            case ReplyTextDelta(_, item, text):
                kind = "output_audio_transcript" if self._message.spoken else "output_text"
                ids |= _part(item, self._message.number)
                return [self._write(f"response.{kind}.delta", delta=text, **ids)]
            case ReplyAudioDelta(_, item, pcm):
                ids |= _part(item, self._message.number)
                return self._audio(self._converter.push(pcm), ids)
            case ReplyCallDelta(_, index, item, call_id, arguments):
                ids |= {"item_id": item, "output_index": index, "call_id": call_id}
                kind = "response.function_call_arguments.delta"
                return [self._write(kind, delta=arguments, **ids)] if arguments else []
            case ReplyItemEnded():
                return self._item_ended(event, ids)
            case ReplyEnded():
                self._converter = _converter(self._format)
                return [
                    self._write("response.done", response=self._response(event)),
                    self._write("rate_limits.updated", rate_limits=self.rate_limits()),
                ]
        raise AssertionError(f"{type(event).__name__} has no frame")

    def _audio(self, audio: bytes, ids: Frame) -> list[bytes]:
        delta = base64.b64encode(audio).decode()
        return [self._write("response.output_audio.delta", delta=delta, **ids)] if audio else []

    def _item_added(self, event: ReplyItemAdded, ids: Frame) -> list[bytes]:
        item, index = render_item(event.item), event.index
        frames = [self._write("response.output_item.added", item=item, output_index=index, **ids)]
        if event.remembered:
            previous = {"previous_item_id": event.after}
            frames.append(self._write("conversation.item.added", item=item, **previous))
        if event.item.kind == "message":
            self._message = _Message(index, event.item.spoken)
            part, ids = _content_part(event.item.spoken, ""), ids | _part(event.item.id, index)
            frames.append(self._write("response.content_part.added", part=part, **ids))
        return frames

    def _item_ended(self, event: ReplyItemEnded, ids: Frame) -> list[bytes]:
        item, ids = event.item, ids | {"output_index": event.index}
        rendered = render_item(item)
        frames = self._message_ended(event, ids) if item.kind == "message" else []
        if item.kind == "call":
            fields = {"item_id": item.id, "call_id": item.call_id, "name": item.name}
            kind = "response.function_call_arguments.done"
            frames.append(self._write(kind, arguments=item.arguments, **fields, **ids))
        frames.append(self._write("response.output_item.done", item=rendered, **ids))
        if event.remembered:
            frames.append(self._write("conversation.item.done", item=rendered))
        return frames

    def _message_ended(self, event: ReplyItemEnded, ids: Frame) -> list[bytes]:
        item = event.item
        ids = ids | _part(item.id, event.index)
        part = _content_part(item.spoken, item.text)
        frames = self._audio_ended(item.text, ids) if item.spoken else []
        if not item.spoken:
            frames.append(self._write("response.output_text.done", text=item.text, **ids))
        frames.append(self._write("response.content_part.done", part=part, **ids))
        return frames

    def _audio_ended(self, text: str, ids: Frame) -> list[bytes]:
        return [
            *self._audio(self._converter.push(b"", last=True), ids),
            self._write("response.output_audio.done", **ids),
            self._write("response.output_audio_transcript.done", transcript=text, **ids),
        ]

    def _id(self, number: int) -> str:
        return f"resp_{self._prefix}{number:04d}"

    def _response(self, event: ReplyStarted | ReplyEnded) -> Frame:
        settings = event.settings
        response: Frame = {
            "id": self._id(event.reply),
            "object": "realtime.response",
            "conversation_id": f"conv_{self._prefix}",
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "output_modalities": ["audio" if settings.audio else "text"],
            "max_output_tokens": settings.max_tokens or "inf",
            "metadata": event.metadata,
            "usage": None,
            **noted(settings.ignored),
        }
        if settings.audio:
            output = {"format": self._format.model_dump(), "voice": settings.voice}
            response["audio"] = {"output": output}
        return response | _outcome(event) if isinstance(event, ReplyEnded) else response


def _converter(format_: Format) -> OutputConverter:
    return OutputConverter(*encoding(format_))


def _part(item: str, index: int) -> Frame:
    return {"item_id": item, "output_index": index, "content_index": 0}


def _content_part(spoken: bool, text: str) -> Frame:
    return {"type": "audio", "transcript": text} if spoken else {"type": "text", "text": text}


def _outcome(event: ReplyEnded) -> Frame:
    details: Frame | None = None
    if event.status != "completed":
        details = {"type": event.status, "reason": event.reason}
    if event.error:
        details = {"type": "failed", "error": event.error.body()["error"]}
    return {
        "status": event.status,
        "status_details": details,
        "output": [render_item(item) for item in event.items],
        "stages": event.stages._asdict(),
        "usage": _usage(event),
    }


def _usage(event: ReplyEnded) -> Frame:
    prompt, completion = event.tokens
    audio = event.audio_ms * 2 // AUDIO_TOKEN_MS  # 50 ms each, as OpenAI counts output audio
    return {
        "total_tokens": prompt + completion + audio,
        "input_tokens": prompt,
        "output_tokens": completion + audio,
        "input_token_details": {"text_tokens": prompt, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": completion, "audio_tokens": audio},
    }
