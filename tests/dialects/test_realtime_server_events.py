import pytest

from serve_app.conversation.events import TranscriptFailed, TranscriptFinal, TurnStarted
from serve_app.dialects.realtime_replies import ReplyEvents
from serve_app.dialects.realtime_server_events import ServerEvents
from serve_app.dialects.realtime_session import RealtimeSession
from serve_app.dialects.realtime_shapes import Pcm
from serve_app.dialects.realtime_writer import EventWriter
from serve_app.errors import ClientError

FAILED = TranscriptFailed("item", ClientError("utterance_failed", "the engine failed"))


@pytest.mark.parametrize("end", [TranscriptFinal("item", "hello", 500), FAILED])
@pytest.mark.parametrize("type_", ["realtime", "transcription"])
def test_nothing_is_kept_of_a_transcript_that_has_ended(
    type_: str, end: TranscriptFinal | TranscriptFailed
) -> None:
    """Also in a session that gets no transcripts."""
    write = EventWriter("it")
    events = ServerEvents(write, ReplyEvents(write, "it", Pcm(type="audio/pcm")), False)
    session = RealtimeSession.model_validate({"type": type_})
    events.render(TurnStarted("item", 0), session)
    assert events._sent
    events.render(end, session)
    assert not events._sent
