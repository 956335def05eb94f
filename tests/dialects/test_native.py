import base64
import contextlib
import json
from typing import Any

import pytest

from deployments.interfaces import Option, SpeechOptions, Word
from serve_app.config import Limits
from serve_app.dialects.native import NativeDialect
from serve_app.errors import CODES, ClientError
from serve_app.live.events import (
    AudioReceived,
    Close,
    Draining,
    ErrorReport,
    FinalizeRequested,
    KeptAlive,
    ProgressReport,
    Resumable,
    Resumed,
    SessionMetrics,
    SpeechBoundary,
    Started,
    StopRequested,
    TranscriptUpdate,
    UtteranceFailed,
)
from serve_app.live.options import EngineInfo
from serve_app.live.resume_point import ResumePoint
from serve_app.security.resume_token import ResumeTokens
from serve_app.security.signing import SigningKeys

PCM = bytes(320)
SPHINX = EngineInfo(
    "pocketsphinx", frozenset({Option.LANGUAGE, Option.HOTWORDS, Option.GRAMMAR}), ("en",)
)


def dialect(**limits: Any) -> NativeDialect:
    return NativeDialect(Limits(**limits), "an-id", SPHINX)


def chunk(sequence: Any = 0, data: str | None = None) -> str:
    data = base64.b64encode(PCM).decode() if data is None else data
    return json.dumps({"type": "audio_chunk", "data": data, "sequence": sequence})


def start(**fields: Any) -> str:
    return json.dumps({"type": "start", **fields})


@pytest.mark.parametrize(
    ("frame", "facts"),
    [
        (PCM, [AudioReceived(PCM)]),
        (chunk(), [AudioReceived(PCM)]),
        ('{"type":"finalize"}', [FinalizeRequested()]),
        ('{"type":"keepalive"}', [KeptAlive()]),
        ('{"type":"stop"}', [AudioReceived(b""), StopRequested()]),
        (start(), [Started(SpeechOptions())]),
        (
            start(language="en-US", interim_results=False, hotwords=["go"], grammar="g"),
            [Started(SpeechOptions("en-US", False, ("go",), "g"))],
        ),
    ],
)
def test_a_frame_becomes_facts_for_the_session(frame: str | bytes, facts: list[Any]) -> None:
    assert dialect().parse(frame) == facts


@pytest.mark.parametrize(
    "options", [{"language": "en"}, {"hotwords": ["go"]}, {"grammar": "#JSGF V1.0;"}]
)
def test_options_that_the_engine_does_not_support_are_refused(options: dict[str, Any]) -> None:
    plain = NativeDialect(Limits(), "an-id", EngineInfo("voxtral-realtime"))
    with pytest.raises(ClientError) as refused:
        plain.parse(start(**options))
    assert refused.value.code == "unsupported_option" and refused.value.param == next(iter(options))
    assert plain.parse(start()) == [Started(SpeechOptions())]


BAD = [
    (["nonsense"], "invalid_json"),
    (["[1]"], "invalid_json"),
    (['{"type":"dance"}'], "unknown_type"),
    (['{"data":1}'], "unknown_type"),
    (['{"type":["start"]}'], "unknown_type"),
    (['{"type":"audio_chunk","sequence":0}'], "invalid_message"),
    ([chunk(data="@@@@")], "invalid_base64"),
    ([chunk(data="AAA")], "invalid_base64"),
    ([chunk(data="AAAA")], "odd_byte_count"),
    ([b"\0"], "odd_byte_count"),
    ([start(channels=2), bytes(6)], "odd_byte_count"),
    (['{"type":"audio_chunk","data":""}'], "missing_sequence"),
    ([chunk("1")], "wrong_sequence"),
    ([chunk(True)], "wrong_sequence"),
    ([chunk(-1)], "wrong_sequence"),
    ([chunk(5), chunk(7)], "wrong_sequence"),
    ([chunk(5), chunk(5)], "wrong_sequence"),
    ([bytes(2002)], "chunk_too_large"),
    ([PCM, start()], "start_not_first"),
    ([start(), start()], "start_not_first"),
    ([start(sample_rate=7999)], "unsupported_sample_rate"),
    ([start(sample_rate=96000)], "unsupported_sample_rate"),
    ([start(sample_rate="16000")], "invalid_message"),
    ([start(encoding="opus")], "unsupported_encoding"),
    ([start(channels=3)], "unsupported_channels"),
    ([start(language="fr")], "unsupported_language"),
    ([start(surprise=1)], "invalid_message"),
    (['{"type":"finalize","channel":1}'], "invalid_message"),
    (['{"type":"keepalive","every_s":5}'], "invalid_message"),
    (['{"type":"stop","flush":false}'], "invalid_message"),
    ([start(session_id="no spaces")], "invalid_message"),
    ([start(hotwords=["a"] * 4)], "too_many_hotwords"),
    ([start(grammar="x" * 2000)], "grammar_too_large"),
    ([start(sample_rate=1), PCM], "audio_before_start"),
]


@pytest.mark.parametrize(("frames", "code"), BAD)
def test_bad_input_has_its_code(frames: list[str | bytes], code: str) -> None:
    native = dialect(max_chunk_bytes=2000, max_hotwords=3, max_grammar_bytes=1000)
    *before, last = frames
    for frame in before:
        with contextlib.suppress(ClientError):
            native.parse(frame)
    with pytest.raises(ClientError) as refused:
        native.parse(last)
    assert refused.value.code == code and refused.value.message
    assert CODES[code].close is None, "the session stays open"


def test_a_refused_chunk_may_be_sent_again() -> None:
    native = dialect()
    native.parse(chunk(1))
    with pytest.raises(ClientError):
        native.parse(chunk(2, data="AAAA"))
    assert native.parse(chunk(2)) == [AudioReceived(PCM)]


def test_a_start_after_a_refused_one_is_accepted() -> None:
    native = dialect()
    with pytest.raises(ClientError):
        native.parse(start(encoding="opus"))
    native.parse(start(encoding="mulaw", sample_rate=8000, session_id="mine"))
    hello = json.loads(native.hello())
    assert (hello["session_id"], hello["encoding"], hello["sample_rate"]) == ("mine", "mulaw", 8000)


def test_the_rest_of_the_resampler_comes_with_stop() -> None:
    native = dialect()
    native.parse(start(sample_rate=8000))
    facts = [fact for frame in (bytes(1600), '{"type":"stop"}') for fact in native.parse(frame)]
    pcm = b"".join(fact.pcm for fact in facts if isinstance(fact, AudioReceived))
    assert len(pcm) == 3200


def test_a_final_has_its_words_and_times_in_ms() -> None:
    words = (Word("hello", 0, 8000, 0.5), Word("there", 8000, 16_000, 1.0))
    update = TranscriptUpdate(3, True, 16_000, 48_000, words)
    assert json.loads(dialect().render(update, 12.5)) == {
        "type": "final",
        "text": "hello there",
        "timestamp": 12.5,
        "audio_ms": 3000,
        "start_ms": 1000,
        "end_ms": 3000,
        "utterance": 3,
        "confidence": 0.75,
        "words": [
            {"word": "hello", "start_ms": 1000, "end_ms": 1500, "confidence": 0.5},
            {"word": "there", "start_ms": 1500, "end_ms": 2000, "confidence": 1.0},
        ],
        "engine": "pocketsphinx",
    }


def test_words_that_changed_are_rendered_again() -> None:
    native = dialect()
    one, two, three = (Word(text, 0, 1600, 1.0) for text in ("one", "two", "three"))
    native.render(TranscriptUpdate(0, False, 0, 1600, (one, two)), 0)
    partial = json.loads(native.render(TranscriptUpdate(0, False, 0, 1600, (one, three)), 0))
    assert [word["word"] for word in partial["words"]] == ["one", "three"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (SpeechBoundary(True, 1600), {"type": "speech_started", "audio_ms": 100, "timestamp": 1.0}),
        (SpeechBoundary(False, 1600), {"type": "speech_ended", "audio_ms": 100, "timestamp": 1.0}),
        (ProgressReport(1600), {"type": "keepalive", "audio_ms": 100}),
        (
            ErrorReport(ClientError("invalid_json", "no")),
            {"type": "error", "code": "invalid_json", "message": "no", "fatal": False},
        ),
        (
            ErrorReport(ClientError("audio_overrun", "no")),
            {"type": "error", "code": "audio_overrun", "message": "no", "fatal": True},
        ),
    ],
)
def test_each_event_is_rendered_as_json(event: Any, expected: dict[str, Any]) -> None:
    assert json.loads(dialect().render(event, 1.0)) == expected


def test_closed_has_the_metrics() -> None:
    closed = json.loads(dialect().render(Close(1000, SessionMetrics(audio_ms=5, utterances=2)), 0))
    assert closed["metrics"]["audio_ms"] == 5 and closed["metrics"]["utterances"] == 2


def resuming(now: float = 0.0, **limits: Any) -> NativeDialect:
    tokens = ResumeTokens(SigningKeys([b"k" * 32]), "a-tenant", 300.0, lambda: now)
    return NativeDialect(Limits(**limits), "an-id", SPHINX, tokens)


OPTIONS: dict[str, Any] = {
    "sample_rate": 48_000,
    "encoding": "pcm_f32le",
    "channels": 2,
    "language": "en",
    "session_id": "mine",
    "interim_results": False,
}


def test_a_token_brings_back_the_format_the_options_and_the_name() -> None:
    first, second = resuming(), resuming(now=60.0)
    first.parse(start(**OPTIONS))
    told = json.loads(first.hello())
    assert told["resume_from_ms"] == 0 and "resumed_from_ms" not in told
    (fact,) = second.parse(start(resume=told["resume"]))
    assert fact == Resumed(SpeechOptions("en", False), ResumePoint(), 60.0)
    again = json.loads(second.hello())
    assert again["session_id"] == "mine" and again["resumed_from_ms"] == 0
    assert {name: again[name] for name in OPTIONS} == OPTIONS
    assert second.session.epoch == 1 and second.session.origin == "an-id"
    assert again["resume"] != told["resume"], "the epoch rises"


POINT = ResumePoint(audio=90_000, listen=82_000, utterance=3)


def test_the_audio_begins_at_a_whole_second_and_what_the_vad_need_not_hear_is_skipped() -> None:
    first, second = resuming(), resuming()
    first.parse(start(sample_rate=8000))
    told = json.loads(first.render(Resumable(POINT), 1.0))
    assert (told["type"], told["audio_ms"], told["resume_from_ms"]) == ("resumable", 5625, 4000)
    (fact,) = second.parse(start(resume=told["resume"]))
    assert fact == Resumed(SpeechOptions(), POINT, 0.0)
    assert json.loads(second.hello())["resumed_from_ms"] == 4000
    pieces = [fact for _ in range(40) for fact in second.parse(bytes(1600))]
    pieces += second.parse('{"type":"stop"}')
    heard = sum(len(it.pcm) // 2 for it in pieces if isinstance(it, AudioReceived))
    assert heard == 4 * 16_000 - (82_000 - 64_000)


def test_finals_and_what_replaces_them_can_be_resumed_after() -> None:
    one = resuming()
    update = TranscriptUpdate(2, True, 0, 90_000, (), None, POINT)
    failed = UtteranceFailed(2, ClientError("utterance_failed", "no"), POINT)
    for event in (update, failed):
        told = json.loads(one.render(event, 1.0))
        assert told["resume_from_ms"] == 4000 and resuming().parse(start(resume=told["resume"]))
    partial = json.loads(one.render(TranscriptUpdate(2, False, 0, 90_000, ()), 1.0))
    assert "resume" not in partial


def test_a_refused_resume_leaves_the_connection_for_a_plain_start() -> None:
    one = resuming()
    for fields in ({"resume": "nonsense"}, {"resume": 5}):
        with pytest.raises(ClientError) as refused:
            one.parse(start(**fields))
        assert refused.value.code == "resume_refused"
    token = json.loads(one.hello())["resume"]
    with pytest.raises(ClientError) as refused:
        one.parse(start(resume=token, language="en"))
    assert refused.value.code == "invalid_message" and refused.value.param == "start.language"
    with pytest.raises(ClientError):
        one.parse(PCM)
    assert one.parse(start()) == [Started(SpeechOptions())]


def test_options_that_another_engine_does_not_have_are_refused_again() -> None:
    first = resuming()
    first.parse(start(hotwords=["go"]))
    token = json.loads(first.hello())["resume"]
    tokens = ResumeTokens(SigningKeys([b"k" * 32]), "a-tenant", 300.0, lambda: 0.0)
    second = NativeDialect(Limits(), "id", EngineInfo("voxtral-realtime"), tokens)
    with pytest.raises(ClientError) as refused:
        second.parse(start(resume=token))
    assert refused.value.code == "unsupported_option"


def test_where_nothing_is_signed_nothing_can_be_resumed() -> None:
    plain = dialect()
    assert "resume" not in json.loads(plain.hello())
    with pytest.raises(ClientError) as refused:
        plain.parse(start(resume=json.loads(resuming().hello())["resume"]))
    assert refused.value.code == "resume_refused"


def test_who_is_told_of_a_drain_can_continue_elsewhere() -> None:
    told = json.loads(resuming().render(Draining(30_000, POINT), 1.0))
    assert (told["type"], told["deadline_ms"]) == ("draining", 30_000)
    assert resuming().parse(start(resume=told["resume"])) == [Resumed(SpeechOptions(), POINT, 0.0)]
