"""The spans of a turn, from the times that its reply noted. Pure.

    turn ── vad ── transcribe ── think ── speak … ── first_audio

`think` and `speak` are recorded by those who do that work. The others are made here, when the reply
has ended.
"""

from collections.abc import Iterator

from serve_app.conversation.events import ReplyEnded
from serve_app.conversation.reply import Timing
from serve_app.observability.trace import Trace
from serve_app.observability.tracing import Span, Value


def turn_spans(
    turn: Trace, parent: Trace | None, ended: ReplyEnded, session: str, now: float
) -> Iterator[Span]:
    timing = ended.timing
    attributes: dict[str, Value] = {
        "voxray.session": session,
        "voxray.turn": ended.reply,
        "voxray.status": ended.status,
        "voxray.prompt_tokens": ended.tokens[0],
        "voxray.reply_tokens": ended.tokens[1],
        "voxray.audio_ms": ended.audio_ms,
    }
    error = ended.error.code if ended.error else ""
    yield Span("turn", turn, parent, _began(timing), now, attributes, error)
    for name, began, reached in _stages(timing):
        if began is not None and reached is not None:
            yield Span(name, turn.child(), turn, began, max(began, reached))


def _began(timing: Timing) -> float:
    """Where the speech ended, or where a reply was asked for."""
    heard = timing.asked if timing.ended is None else timing.ended - timing.vad_ms / 1000
    return min(heard, timing.asked)


def _stages(timing: Timing) -> Iterator[tuple[str, float | None, float | None]]:
    if timing.ended is not None:
        yield "vad", timing.ended - timing.vad_ms / 1000, timing.ended
        yield "transcribe", timing.ended, timing.transcribed
    if timing.clause is not None:
        yield "first_audio", timing.clause, timing.sent
