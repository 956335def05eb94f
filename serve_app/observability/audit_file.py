"""The audit log's file: lines are added, never changed, by any number of processes.

When it is full, it becomes `audit.log.1`, and so on; the oldest is deleted. A lock on a file beside
it keeps processes from doing that at once. Everything here blocks.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES, FILES = 20 << 20, 10
"""Of one file, and how many are kept beside the one that is written."""

OPEN = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def append(file: Path, lines: bytes) -> None:
    """Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(file.with_name(f"{file.name}.lock")):
        if _size(file) + len(lines) > MAX_BYTES:
            _rotate(file)
        _write(file, lines)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    held = os.open(lock, OPEN, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _write(file: Path, lines: bytes) -> None:
    out = os.open(file, OPEN | os.O_APPEND, 0o600)
    try:
        os.fchmod(out, 0o600)
        _write_all(out, lines)
    finally:
        os.close(out)


def _write_all(out: int, lines: bytes) -> None:
    """Or nothing: a full disk leaves no half line."""
    before = os.fstat(out).st_size
    try:
        while lines:
            lines = lines[os.write(out, lines) :]
    except OSError:
        os.ftruncate(out, before)
        raise


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _rotate(file: Path) -> None:
    for number in range(FILES - 1, 0, -1):
        older = _numbered(file, number)
        if older.exists():
            older.replace(_numbered(file, number + 1))
    if file.exists():
        file.replace(_numbered(file, 1))


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")
