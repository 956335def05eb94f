from serve_app.live.transcript import Segment, render

SEGMENTS = [
    Segment(id=0, start_ms=0, end_ms=1500, text="hello there", confidence=1),
    Segment(id=1, start_ms=1500, end_ms=1600, text="", confidence=0),
    Segment(id=2, start_ms=3_599_990, end_ms=3_601_002, text="bye", confidence=1),
]


def test_subtitles_as_srt() -> None:
    assert render("srt", SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nhello there\n\n2\n00:59:59,990 --> 01:00:01,002\nbye\n\n"
    )


def test_subtitles_as_vtt() -> None:
    assert render("vtt", SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nhello there\n\n"
        "00:59:59.990 --> 01:00:01.002\nbye\n\n"
    )


def test_plain_text_has_a_line_per_segment() -> None:
    assert render("txt", SEGMENTS) == "hello there\nbye\n"
