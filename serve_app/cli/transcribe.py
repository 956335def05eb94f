"""`voxray transcribe`: recordings, decoded here, streamed to the server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deployments.decoding import Bounds, Undecodable, decode, duration_s
from serve_app.cli import DONE, FAILED, NO_SERVER, complain
from serve_app.cli.captions import Captions
from serve_app.cli.client import NoServer, SessionFailed, run_session
from serve_app.live.transcript import Form, Segment, render

CHUNK_BYTES = 3_200
"""100 ms of 16 kHz mono."""

ANY_LENGTH = Bounds(max_s=1e9, cpu_s=1e9)


class TranscribeRequest(NamedTuple):
    server: str
    realtime: bool
    form: Form | None
    start: dict[str, Any]
    out: Path | None


def transcribe_files(job: TranscribeRequest, files: Sequence[Path]) -> int:
    written: list[str] = []
    outcome = DONE
    for file in files:
        try:
            written.append(asyncio.run(_transcribe(job, file)))
        except NoServer as error:
            complain(str(error))
            return NO_SERVER
        except (SessionFailed, Undecodable) as error:
            complain(f"{file}: {error}")
            outcome = FAILED
    _write(job, "".join(written))
    return outcome


async def _transcribe(job: TranscribeRequest, file: Path) -> str:
    captions = Captions(file.name, duration_s(file))
    with captions.shown():
        await run_session(job.server, job.start, _chunks(file), captions.on_event, job.realtime)
    if captions.errors:
        raise SessionFailed("; ".join(error["message"] for error in captions.errors))
    return _formatted(job.form, captions)


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


def _formatted(form: Form | None, captions: Captions) -> str:
    if form == "json":
        return "".join(json.dumps(final) + "\n" for final in captions.finals)
    segments = [
        Segment(
            id=f["utterance"], **{k: f[k] for k in ("start_ms", "end_ms", "text", "confidence")}
        )
        for f in captions.finals
    ]
    return render(form or "txt", segments)


def _write(job: TranscribeRequest, text: str) -> None:
    if job.out:
        job.out.write_text(text)
    else:
        sys.stdout.write(text)
