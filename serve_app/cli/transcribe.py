"""`voxray transcribe`: decodes recordings and streams them to the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from deployments.decoding import Bounds, Undecodable, decode, duration_s
from serve_app.cli import FAILED, Failure, NoServer, WrongUsage, complain
from serve_app.cli.captions import Captions
from serve_app.cli.client import run_session
from serve_app.cli.output import output
from serve_app.live.transcript import Form, Segment, render

CHUNK_BYTES = 3_200
"""100 ms of 16 kHz mono."""

ANY_LENGTH = Bounds(max_s=1e9, cpu_s=1e9)


class TranscribeOptions(NamedTuple):
    """The options of each recording."""

    server: str
    realtime: bool
    form: Form
    start: dict[str, Any]


def transcribe(options: TranscribeOptions, files: Sequence[Path], out: Path | None) -> None:
    """If one recording fails, the others are still printed, but `out` is not written.

    Raises `WrongUsage` for subtitles of several recordings in one file.
    """
    if len(files) > 1 and options.form in ("srt", "vtt"):
        raise WrongUsage(
            "one file cannot contain the subtitles of several recordings; run one command for "
            f"each, or `voxray jobs submit FOLDER --format {options.form} -o FOLDER`"
        )
    failed = False
    with output(out) as written:
        for file in files:
            try:
                written.write(asyncio.run(_transcribe(options, file)).encode())
                written.flush()
            except NoServer:
                raise
            except (Failure, Undecodable) as error:
                complain(f"{file}: {error}")
                failed = True
        if failed:
            raise typer.Exit(FAILED)


async def _transcribe(options: TranscribeOptions, file: Path) -> str:
    captions = Captions(file.name, duration_s(file))
    server, realtime, form, start = options
    with captions.shown():
        await run_session(server, start, _chunks(file), captions.on_event, realtime)
    if captions.failed:
        raise Failure(f"{captions.failed} utterances could not be transcribed")
    return _formatted(form, captions)


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    rest = b""
    for pcm in decode(file, ANY_LENGTH):
        rest += pcm
        while len(rest) >= CHUNK_BYTES:
            yield rest[:CHUNK_BYTES]
            rest = rest[CHUNK_BYTES:]
        await asyncio.sleep(0)
    if rest:
        yield rest


def _formatted(form: Form, captions: Captions) -> str:
    if form == "json":
        return "".join(json.dumps(final) + "\n" for final in captions.finals)
    segments = [
        Segment(
            id=f["utterance"], **{k: f[k] for k in ("start_ms", "end_ms", "text", "confidence")}
        )
        for f in captions.finals
    ]
    return render(form, segments)
