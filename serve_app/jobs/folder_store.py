"""Objects as files in a local folder.

A file is written as `NAME#number`, synced and renamed: it appears whole, and survives a power
failure. What a killed process left has that `#` and is not listed.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from serve_app.security.owner_only import make_folder, owner_only, tighten

STAGED = re.compile(r"#\d+$")


class FolderStore:
    """Every method raises `OSError`; `FileNotFoundError` if there is no such object."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        _tighten_ours(folder)
        self._folder = folder

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free

    async def put(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Raises what `pieces` raises, too; then nothing is stored."""
        target = self._folder / name
        staged = target.with_name(f"{target.name}#{secrets.randbits(63)}")
        try:
            with await asyncio.to_thread(_create, staged) as file:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                await asyncio.to_thread(_sync, file)
            staged.replace(target)
        except BaseException:
            self._remove(staged)
            raise

    async def size(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    async def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, fewer at the end of the object."""
        return await asyncio.to_thread(_read, self._folder / name, start, end)

    async def names(self, prefix: str) -> list[tuple[str, float]]:
        """Objects under a path, and when they were written, in seconds since 1970."""
        return await asyncio.to_thread(lambda: list(self._listed(prefix)))

    async def delete(self, name: str) -> None:
        (self._folder / name).unlink()
        self._remove_empty((self._folder / name).parent)

    async def forget_unfinished(self, before: float) -> None:
        """Delete what killed processes left before that time, in seconds since 1970."""
        await asyncio.to_thread(self._remove_unfinished, before)

    def _listed(self, prefix: str) -> Iterator[tuple[str, float]]:
        for file in self._files(self._folder / prefix):
            if not STAGED.search(file.name):
                with contextlib.suppress(FileNotFoundError):
                    yield str(file.relative_to(self._folder)), file.stat().st_mtime

    def _remove_unfinished(self, before: float) -> None:
        for file in self._files(self._folder):
            if STAGED.search(file.name):
                with contextlib.suppress(OSError):
                    if file.stat().st_mtime < before:
                        self._remove(file)

    def _files(self, folder: Path) -> Iterator[Path]:
        """All files below; those deleted meanwhile are left out."""
        return (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)

    def _remove(self, file: Path) -> None:
        with contextlib.suppress(OSError):
            file.unlink()
        self._remove_empty(file.parent)

    def _remove_empty(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # it is not empty, or already deleted
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent


def _tighten_ours(folder: Path) -> None:
    """A tenant's folder has jobs; with it, others lose what is below. The folder of a store that
    has nothing else is ours, too."""
    within = list(folder.iterdir())
    tenants = [it for it in within if it.is_dir() and any(it.glob("job_*"))]
    tighten(tenants if len(tenants) < len(within) else [*tenants, folder])


def _create(file: Path) -> IO[bytes]:
    """A concurrent deletion may remove the folder before the file is created."""
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            make_folder(file.parent)
            return open(file, "xb", opener=owner_only)
    raise FileNotFoundError(file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read(file: Path, start: int, end: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(end - start)
