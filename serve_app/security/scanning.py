"""Asks the configured command about each file before it is accepted. A file of which it says
nothing is not accepted."""

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, AsyncIterator
from typing import IO, Any

from serve_app.config import UploadsConfig
from serve_app.errors import ClientError

log = logging.getLogger("voxray.scanning")

CLEAN, INFECTED = 0, 1
PIECE_BYTES = 1 << 20
RETRY_AFTER_S = 10

ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
"""What the command gets of ours: no keys."""


class Scanner:
    """The scans of one process."""

    def __init__(self, config: UploadsConfig = UploadsConfig()) -> None:  # noqa: B008
        self._command = config.command
        self._timeout_s = config.scan_timeout_s
        self._slots = asyncio.Semaphore(config.scans_at_once)

    async def passed(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The same pieces, if necessary after the whole file was scanned. Raises `ClientError`."""
        if not self._command:
            async for piece in pieces:
                yield piece
            return
        with tempfile.TemporaryFile(prefix="voxray-") as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
            await self.check(file)
            file.seek(0)
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    async def check(self, file: IO[bytes]) -> None:
        """Raises `ClientError` if the file is refused, or if nobody knows."""
        if not self._command:
            return
        file.flush()
        async with self._slots:
            file.seek(0)
            status, cause = await self._status(file)
        if status == INFECTED:
            log.warning("upload_refused")
            raise ClientError("upload_refused", "the scanner of this server refuses the file")
        if status != CLEAN:
            log.error("scan_failed", extra={"cause": cause})
            reason = "the file could not be scanned; retry later"
            raise ClientError("scan_failed", reason, RETRY_AFTER_S)

    async def _status(self, file: IO[bytes]) -> tuple[int | None, str]:
        """The exit status and, if it is none that is known, why."""
        try:
            process = await self._started(file)
        except OSError as error:
            return None, type(error).__name__
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await process.wait()
        except TimeoutError:
            return None, f"no answer within {self._timeout_s:g} s"
        finally:
            await _ended(process)
        return status, f"exit status {status}"

    async def _started(self, file: IO[bytes]) -> Process:
        options: dict[str, Any] = {"stdout": DEVNULL, "stderr": DEVNULL, "start_new_session": True}
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=file, env=environment, **options
        )


async def _ended(process: Process) -> None:
    """It and what it has started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
