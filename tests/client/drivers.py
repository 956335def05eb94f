"""The reference clients, driven alike: each streams audio and lists the events it gave."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serve_app.client import (
    ConnectionResumed,
    ErrorNotice,
    Final,
    LiveOptions,
    LiveTranscription,
    Partial,
    QualityNotice,
    Reconnecting,
    SessionClosed,
    SessionFailed,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    TranscriptionError,
)
from serve_app.client.key import VARIABLE

SCRIPT = Path(__file__).parent / "stream.mjs"
CHUNK_MS, BYTES_PER_MS = 100, 32
LONGEST_S = 20
NAMES = {
    SessionStarted: "session",
    SpeechStarted: "speech_started",
    SpeechEnded: "speech_ended",
    Partial: "partial",
    Final: "final",
    ErrorNotice: "error",
    QualityNotice: "quality",
    Reconnecting: "reconnecting",
    ConnectionResumed: "resumed",
    SessionClosed: "closed",
}

Event = dict[str, Any]
Driver = Callable[..., Awaitable[list[Event]]]
"""(url, audio, speed, finalize_at_ms) → events, then `done` or `failed`."""


async def in_python(
    url: str, audio: Path, speed: float = 0, finalize_at_ms: int = -1
) -> list[Event]:
    events: list[Event] = []
    pcm = await asyncio.to_thread(audio.read_bytes)
    async with LiveTranscription(url, LiveOptions(language="en")) as live:
        live.stream(_chunks(live, pcm, speed, finalize_at_ms))
        try:
            async for event in live:
                events.append({"type": NAMES[type(event)], **asdict(event)})
            events.append({"type": "done"})
        except TranscriptionError as error:
            code = error.code if isinstance(error, SessionFailed) else "unreachable"
            events.append({"type": "failed", "code": code, "message": str(error)})
    return events


async def _chunks(
    live: LiveTranscription, audio: bytes, speed: float, finalize_at_ms: int
) -> AsyncIterator[bytes]:
    for at in range(0, len(audio), CHUNK_MS * BYTES_PER_MS):
        if at == finalize_at_ms * BYTES_PER_MS:
            live.finalize()
        yield audio[at : at + CHUNK_MS * BYTES_PER_MS]
        await asyncio.sleep(CHUNK_MS / 1000 / speed if speed else 0)


async def in_node(url: str, audio: Path, speed: float = 0, finalize_at_ms: int = -1) -> list[Event]:
    options = (str(speed), str(finalize_at_ms), os.environ.get(VARIABLE, ""))
    command = [*(node() or []), str(SCRIPT), url, str(audio), *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), LONGEST_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]


@cache
def node() -> list[str] | None:
    """A Node that has `WebSocket`, from 22 on by itself."""
    found = shutil.which("node")
    for flags in ([], ["--experimental-websocket"]) if found else ():
        command = [str(found), *flags]
        checked = subprocess.run([*command, "-e", "WebSocket"], capture_output=True)
        if checked.returncode == 0:
            return command
    return None


both = pytest.mark.parametrize(
    "client",
    [
        pytest.param(in_python, id="python"),
        pytest.param(
            in_node, id="js", marks=pytest.mark.skipif(not node(), reason="there is no Node")
        ),
    ],
)
