"""`voxray say`: speaks a text into an audio file."""

from pathlib import Path
from typing import IO, Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from serve_app.cli import WrongUsage, console
from serve_app.cli.output import STDOUT, output
from serve_app.cli.rest import Rest

FORMATS = {
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
    ".flac": "flac",
    ".wav": "wav",
    ".pcm": "pcm",
}


def say(server: str, speech: dict[str, Any], form: str | None, out: Path) -> None:
    """Write `speech`, the fields of `POST /v1/audio/speech`, in the format of `out`'s name or in
    `form`."""
    body = {**speech, "response_format": form or _format_of(out)}
    with (
        output(out, binary=True) as file,
        Rest(server).stream("POST", "/v1/audio/speech", json=body) as answer,
    ):
        _copy(answer, file)


def _format_of(out: Path) -> str:
    if out == STDOUT:
        return "wav"
    try:
        return FORMATS[out.suffix.lower()]
    except KeyError:
        names = ", ".join(FORMATS)
        raise WrongUsage(f"{out}: use --format, or a name that ends in {names}") from None


def _copy(answer: Any, file: IO[bytes]) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task, size = progress.add_task("speaking …"), 0
        for piece in answer.iter_bytes():
            size += file.write(piece)
            progress.update(task, description=f"speaking … {size // 1024} KiB")
