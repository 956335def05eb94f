"""`voxray jobs submit`: submits recordings and folders of recordings."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from serve_app.cli import FAILED, Failure, NoServer, complain, console
from serve_app.cli.output import check_folder, output
from serve_app.cli.rest import Refused, Rest
from serve_app.cli.watch import all_completed, until_ended

SUFFIXES = frozenset(
    ".wav .flac .mp3 .ogg .oga .opus .webm .mkv .m4a .mp4 .mov .aac .aif .aiff .caf .w64 "
    ".amr".split()
)


class Results(NamedTuple):
    """Whether to wait for results, and the folder to write them to."""

    watch: bool
    form: str
    out: Path | None


class LocalFile(NamedTuple):
    file: Path
    target: Path
    """Its result, relative to the output folder."""


def submit_recordings(
    server: str, paths: Sequence[Path], fields: dict[str, Any], results: Results
) -> None:
    recordings = list(_recordings(paths))
    if not recordings:
        raise Failure(f"no recordings found; files must end in {' '.join(sorted(SUFFIXES))}")
    if results.out:
        check_folder(results.out)
    rest = Rest(server)
    sent = dict(_sent(rest, recordings, fields))
    done = len(sent) == len(recordings)
    if results.watch or results.out:
        ended = until_ended(rest, list(sent))
        done &= all_completed(ended)
        for job in ended:
            if results.out and job["state"] == "completed":
                _save(rest, job["id"], results.out / sent[job["id"]].target, results.form)
    if not done:
        raise typer.Exit(FAILED)


def _recordings(paths: Iterable[Path]) -> Iterator[LocalFile]:
    """All files given, and the recordings in folders; other files are reported."""
    for path in paths:
        if not path.is_dir():
            yield LocalFile(path, Path(path.name))
            continue
        for file in sorted(it for it in path.rglob("*") if not it.is_dir()):
            if reason := _reason_to_skip(file):
                console.print(f"skipped {file}: {reason}", style="yellow", markup=False)
            else:
                yield LocalFile(file, file.relative_to(path))


def _reason_to_skip(file: Path) -> str | None:
    if file.suffix.lower() not in SUFFIXES:
        return f"{file.suffix or 'a file without suffix'} is not an audio format"
    return None if file.is_file() else "not a regular file"


def _sent(
    rest: Rest, recordings: Sequence[LocalFile], fields: dict[str, Any]
) -> Iterator[tuple[str, LocalFile]]:
    """Each job's id and recording; refused recordings are reported."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        for recording in recordings:
            try:
                yield _send(rest, recording.file, fields, progress), recording
            except NoServer:
                raise
            except (Refused, OSError) as error:
                complain(f"{recording.file}: {error}")


def _send(rest: Rest, file: Path, fields: dict[str, Any], progress: Progress) -> str:
    """Prints and returns the job's id."""
    task = progress.add_task(f"sending {file.name}", total=file.stat().st_size)
    with file.open("rb") as body:
        files = {"file": (file.name, _Watched(body, progress, task))}
        id_ = str(rest.ask("POST", "/v1/jobs", files=files, data=fields).json()["id"])
    print(id_, flush=True)
    return id_


class _Watched:
    """A file that shows on a bar how much was read."""

    def __init__(self, file: IO[bytes], progress: Progress, task: TaskID) -> None:
        self._file, self._progress, self._task = file, progress, task
        self.seek, self.tell, self.fileno = file.seek, file.tell, file.fileno

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._progress.advance(self._task, len(piece))
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(1 << 16), b"")


def _save(rest: Rest, id_: str, target: Path, form: str) -> None:
    out = target.with_suffix(f".{form}")
    check_folder(out.parent)
    with output(out) as file:
        file.write(rest.ask("GET", f"/v1/jobs/{id_}/export/{form}").content)
