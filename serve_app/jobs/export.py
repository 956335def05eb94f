"""Results in the formats of documents, captions and other programs. Pure."""

import io
from collections.abc import Callable
from typing import NamedTuple

from serve_app.extras import DOCX, module_of
from serve_app.jobs.result import Result, SpokenSegment
from serve_app.live.transcript import Segment, clock, one_line, render


class Export(NamedTuple):
    media_type: str
    body: bytes


def _text(result: Result) -> bytes:
    return render("txt", _captioned(result)).encode()


def _srt(result: Result) -> bytes:
    return render("srt", _captioned(result)).encode()


def _vtt(result: Result) -> bytes:
    return render("vtt", _captioned(result)).encode()


def _json(result: Result) -> bytes:
    return result.model_dump_json(indent=2).encode()


def _tsv(result: Result) -> bytes:
    """Whisper's format, start and end in ms, with an additional column for the speaker."""
    lines = ["start\tend\tspeaker\ttext"]
    lines += [
        f"{it.start_ms}\t{it.end_ms}\t{it.speaker or ''}\t{one_line(it.text)}"
        for it in result.aligned_segments
    ]
    return ("\n".join(lines) + "\n").encode()


def _docx(result: Result) -> bytes:
    document = module_of(DOCX).Document()
    document.add_heading("Transcript", 1)
    for it in result.aligned_segments:
        paragraph = document.add_paragraph()
        paragraph.add_run(f"{clock(it.start_ms, '.')[:8]}  ").italic = True
        if it.speaker:
            paragraph.add_run(f"{it.speaker}: ").bold = True
        paragraph.add_run(one_line(it.text))  # XML does not allow control characters
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def _captioned(result: Result) -> list[Segment]:
    """With the speaker before the text, if it is known."""
    return [it.model_copy(update={"text": _said(it)}) for it in result.aligned_segments]


def _said(it: SpokenSegment) -> str:
    return f"{it.speaker}: {it.text}" if it.speaker else it.text


DOCX_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

FORMS: dict[str, tuple[str, Callable[[Result], bytes]]] = {
    "txt": ("text/plain; charset=utf-8", _text),
    "srt": ("application/x-subrip", _srt),
    "vtt": ("text/vtt; charset=utf-8", _vtt),
    "json": ("application/json", _json),
    "tsv": ("text/tab-separated-values; charset=utf-8", _tsv),
    "docx": (DOCX_TYPE, _docx),
}


def export(form: str, result: Result) -> Export:
    """Raises `KeyError` for an unknown form, `MissingExtra` for docx without python-docx."""
    media_type, write = FORMS[form]
    return Export(media_type, write(result))
