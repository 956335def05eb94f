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
    ErrorReport,
    FinalizeRequested,
    KeptAlive,
    ProgressReport,
    SessionMetrics,
    SpeechBoundary,
    Started,
    StopRequested,
    TranscriptUpdate,
)
from serve_app.live.options import EngineInfo

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
