"""The way of log lines from every replica of `voxray run` to its stdout: one named pipe.

Ray starts replicas with files for stdout, and they inherit no pipe; but they know its path. A line
of at most `PIPE_BUF` bytes is written whole, by any number of writers. Writing never waits: lines
that find the pipe full are dropped, and the next line that fits says how many.
"""

import contextlib
import fcntl
import logging
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

LOG_PIPE = "VOXRAY_LOG_PIPE"
"""The environment variable with the pipe's path."""

F_SETPIPE_SZ = 1031
"""Of <linux/fcntl.h>."""

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 16
STOP_S = 2.0


class PipeWriter(logging.Handler):
    """Opened when the first line is written, and again after the reader was away."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._pipe: int | None = None
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._dropped and self._write(_lines_dropped(self._dropped)):
            self._dropped = 0
        if not self._write(record):
            self._dropped += 1

    def _write(self, record: logging.LogRecord) -> bool:
        """Whether the pipe had room for it."""
        line = self.format(record).encode() + b"\n"
        try:
            if self._pipe is None:
                self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            return len(line) <= select.PIPE_BUF and os.write(self._pipe, line) > 0
        except BlockingIOError:
            return False
        except OSError:  # nobody reads
            self._close_pipe()
            return False

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def close(self) -> None:
        self._close_pipe()
        super().close()


def _lines_dropped(lines: int) -> logging.LogRecord:
    fields = {"msg": "lines_dropped", "levelname": "WARNING", "lines": lines}
    return logging.makeLogRecord(fields)


@contextlib.contextmanager
def relayed(path: Path, out: int) -> Iterator[None]:
    """Meanwhile everything that comes out of a new pipe at `path` is written to the file
    descriptor `out`."""
    os.mkfifo(path, 0o600)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # a writer, too: else reading would end
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)
    stop, stopping = os.pipe()
    relaying = threading.Thread(target=_relay, args=(pipe, stop, out), daemon=True)
    relaying.start()
    try:
        yield
    finally:
        os.close(stopping)
        relaying.join(STOP_S)  # longer only where nobody reads `out`


def _relay(pipe: int, stop: int, out: int) -> None:
    """Until `stop` is closed and the pipe is empty. A slow `out` fills the pipe, and lines are
    dropped where they are written; the same if `out` is closed."""
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([pipe, stop], [], [])
            try:
                lines = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                if stop in ready:
                    return
                continue
            while lines:
                lines = lines[os.write(out, lines) :]
