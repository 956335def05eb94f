"""`voxray transcribe`: decodes recordings and streams them to the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import typer

from deployments.decoding import Bounds, Undecodable, decode, duration_s
from serve_app.cli import FAILED, Failure, NoServer, WrongUsage, complain
from serve_app.cli.captions import Captions
from serve_app.cli.client import reported
from serve_app.cli.output import output
from serve_app.client import Final, LiveOptions, LiveTranscription, paced
from serve_app.live.transcript import Form, Segment, render

CHUNK_BYTES = 3_200
"""100 ms of 16 kHz mono."""

ANY_LENGTH = Bounds(max_s=1e9, cpu_s=1e9)


class TranscribeOptions(NamedTuple):
    """The options of each recording."""

    server: str
    realtime: bool
    form: Form
    start: LiveOptions


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
    pcm = paced(_chunks(file)) if options.realtime else _chunks(file)
    with captions.shown(), reported(options.server):
        async with LiveTranscription(options.server, options.start) as live:
            live.stream(pcm)
            async for event in live:
                captions.on_event(event)
    if captions.failed:
        raise Failure(f"{captions.failed} utterances could not be transcribed")
    return _formatted(options.form, captions)


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
        return "".join(json.dumps(_shown(final)) + "\n" for final in captions.finals)
    segments = [
        Segment(
            id=final.utterance,
            start_ms=final.start_ms,
            end_ms=final.end_ms,
            text=final.text,
            confidence=final.confidence,
        )
        for final in captions.finals
    ]
    return render(form, segments)


def _shown(final: Final) -> dict[str, Any]:
    """As on the wire."""
    fields = {name: value for name, value in asdict(final).items() if value is not None}
    return {"type": "final", **fields}
