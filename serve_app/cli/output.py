"""Writes a command's result: to stdout, or to a file that is complete or does not exist."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from serve_app.cli import Failure, WrongUsage, console

STDOUT = Path("-")


@contextmanager
def output(out: Path | None, binary: bool = False) -> Iterator[IO[bytes]]:
    """A file to write the result into; None and `-` are stdout.

    Open it before the work: it raises `Failure` if `out` cannot be written, and `WrongUsage` if
    `binary` would go to a terminal. The file is moved to `out` at the end, so that a failed command
    leaves no file, and named on stderr.
    """
    if out in (None, STDOUT):
        yield _safe(sys.stdout.buffer, binary)
        sys.stdout.flush()
    elif out.exists() and not out.is_file():
        with _writable(out), out.open("wb") as special:
            yield _safe(special, binary)
    else:
        with _moved(out.resolve()) as file:
            yield file
        console.print(f"wrote {out}", markup=False)


def check_folder(folder: Path) -> None:
    """Create `folder` if it is missing. Raises `Failure` if it is not writable."""
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = _beside(folder / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()


@contextmanager
def _moved(out: Path) -> Iterator[IO[bytes]]:
    part = _beside(out)
    with _writable(out):
        if out.exists():
            out.open("ab").close()
        file = part.open("xb")
    try:
        with file:
            yield file
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name[:200]}.{os.getpid()}.part")


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {out}: {error.strerror}") from error


def _safe(file: IO[bytes], binary: bool) -> IO[bytes]:
    if binary and file.isatty():
        raise WrongUsage(
            "the output is binary, which a terminal cannot show; use -o FILE or a pipe"
        )
    return file
