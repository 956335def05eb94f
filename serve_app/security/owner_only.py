"""Files and folders that only their owner may read, whatever the umask is."""

import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("voxray.storage")

OTHERS = 0o077


def owner_only(path: str, flags: int) -> int:
    """The `opener` of a file that is new, or the owner's already."""
    return os.open(path, flags, 0o600)


def make_folder(folder: Path) -> None:
    """With all that is missing above it. Raises `OSError`."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for it in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            it.mkdir(mode=0o700)


def tighten(paths: Iterable[Path]) -> None:
    """Take others' rights from files and folders that exist; a warning where that cannot be."""
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & OTHERS:
                path.chmod(mode & ~OTHERS)
        except FileNotFoundError:
            continue
        except OSError as error:
            fields = {"path": str(path), "cause": type(error).__name__}
            log.warning("file_exposed", extra=fields)
