"""`voxray say`: a text as an audio file."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from serve_app.cli import DONE, FAILED, NO_SERVER, complain, console, refusal

FORMATS = {
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
    ".flac": "flac",
    ".wav": "wav",
    ".pcm": "pcm",
}


def say_text(
    server: str, text: str, out: Path, voice: str | None, style: str | None, speed: float
) -> int:
    format_ = FORMATS.get(out.suffix.lower())
    if not format_:
        complain(f"{out}: the file's name must end in one of {', '.join(FORMATS)}")
        return FAILED
    body = {
        "input": text,
        "voice": voice,
        "style": style,
        "speed": speed,
        "response_format": format_,
    }
    try:
        with httpx.stream("POST", f"{server}/v1/audio/speech", json=body, timeout=60) as answer:
            if answer.status_code != 200:
                answer.read()
                complain(refusal(answer))
                return FAILED
            _write(answer, out)
    except httpx.HTTPError:
        complain(f"no voxray server at {server}: start one with `voxray run`")
        return NO_SERVER
    return DONE


def _write(answer: Any, out: Path) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with out.open("wb") as file, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("speaking …")
        for piece in answer.iter_bytes():
            file.write(piece)
            progress.update(task, description=f"speaking … {file.tell() // 1024} KiB")
