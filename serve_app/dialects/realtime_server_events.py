"""Events of the OpenAI Realtime dialect about speech, items and transcripts. Pure."""

from serve_app.conversation.events import (
    Event,
    ItemAdded,
    ItemDeleted,
    ItemRetrieved,
    ItemTruncated,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
    TurnEnded,
    TurnStarted,
)
from serve_app.dialects.frames import Frame, growth, token_usage
from serve_app.dialects.realtime_items import render_item
from serve_app.dialects.realtime_replies import ReplyEvents
from serve_app.dialects.realtime_session import RealtimeSession
from serve_app.dialects.realtime_writer import EventWriter
from serve_app.errors import ClientError
from serve_app.live.events import Close, Draining, ErrorReport, QualityChanged, ServerNotice
from serve_app.live.transcript import ms

SPEECH = "input_audio_buffer.speech"
TRANSCRIPTION = "conversation.item.input_audio_transcription"

Transcript = TranscriptPartial | TranscriptFinal | TranscriptFailed


class ServerEvents:
    """Renders the events of one connection."""

    def __init__(self, write: EventWriter, replies: ReplyEvents, revises: bool) -> None:
        self._write = write
        self._replies = replies
        self._revises = revises
        self._sent: dict[str, str] = {}
        """The deltas so far of each unfinished transcript whose item the client knows."""

    def render(
        self, event: Event | ServerNotice | ErrorReport | Close, session: RealtimeSession
    ) -> list[bytes]:
        write = self._write
        match event:
            case TurnStarted(item, sample):
                self._sent[item] = ""
                return [write(f"{SPEECH}_started", audio_start_ms=ms(sample), item_id=item)]
            case TurnEnded(item, sample):
                return [write(f"{SPEECH}_stopped", audio_end_ms=ms(sample), item_id=item)]
            case ItemAdded():
                return self._item_added(event)
            case ItemDeleted(id_):
                return [write("conversation.item.deleted", item_id=id_)]
            case ItemRetrieved(item_):
                return [write("conversation.item.retrieved", item=render_item(item_))]
            case ItemTruncated(id_, end_ms):
                fields = {"item_id": id_, "content_index": 0, "audio_end_ms": end_ms}
                return [write("conversation.item.truncated", **fields)]
            case TranscriptPartial() | TranscriptFinal() | TranscriptFailed():
                return self._transcript(event, session)
            case ErrorReport(error):
                # only the close code says why a session ends: clients take every `error` event
                # for their own mistake
                return [] if error.close is not None else [self.error(error)]
            case Close() | Draining() | QualityChanged():  # it has no event for that
                return []
        return self._replies.render(event)

    def error(self, error: ClientError, event_id: str | None = None) -> bytes:
        return self._write("error", error=error.body()["error"] | {"event_id": event_id})

    def _item_added(self, event: ItemAdded) -> list[bytes]:
        item, previous = render_item(event.item), {"previous_item_id": event.after}
        frames = []
        if event.committed:
            id_ = event.item.id
            self._sent.setdefault(id_, "")
            frames.append(self._write("input_audio_buffer.committed", item_id=id_, **previous))
        frames.append(self._write("conversation.item.added", item=item, **previous))
        frames.append(self._write("conversation.item.done", item=item, **previous))
        return frames

    def _transcript(self, event: Transcript, session: RealtimeSession) -> list[bytes]:
        """None for a realtime session without transcription."""
        is_live = session.type == "transcription"
        if not is_live and session.audio.input.transcription is None:
            self._sent.pop(event.item, None)
            return []
        fields = {"item_id": event.item, "content_index": 0}
        match event:
            case TranscriptPartial(item, text):
                sends_deltas = is_live and not self._revises and item in self._sent
                return self._delta(item, text) if sends_deltas else []
            case TranscriptFinal(item, text, audio_ms):
                deltas = self._delta(item, text)
                self._sent.pop(item, None)
                fields |= {"transcript": text, "usage": _usage(audio_ms, text)}
                return [*deltas, self._write(f"{TRANSCRIPTION}.completed", **fields)]
            case TranscriptFailed(item, error):
                self._sent.pop(item, None)
                fields |= {"error": error.body()["error"]}
                return [self._write(f"{TRANSCRIPTION}.failed", **fields)]

    def _delta(self, item: str, text: str) -> list[bytes]:
        delta = growth(self._sent.get(item, ""), text)
        if not delta:
            return []
        self._sent[item] = text
        fields = {"item_id": item, "content_index": 0, "delta": delta}
        return [self._write(f"{TRANSCRIPTION}.delta", **fields)]


def _usage(audio_ms: int, text: str) -> Frame:
    usage = token_usage(audio_ms, text)
    details = {"audio_tokens": usage["input_tokens"], "text_tokens": 0}
    return {**usage, "input_token_details": details}
