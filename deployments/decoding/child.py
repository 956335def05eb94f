"""The process that decodes one recording, within bounds on memory and time of its processor.

Run by `process`. It opens nothing but the path that it is given, or asks for the bytes of a
`Source` over a socket. On stdout: a frame with `Info`, then pcm; on stderr: why it failed.
"""

import io
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from deployments.child import give_way
from deployments.decoding.limits import BLOCK_BYTES, Bounds, Info, Undecodable
from deployments.decoding.process import RANGE
from deployments.decoding.recording import decode_telling
from deployments.framing import frame

MEMORY_BYTES = 2 << 30


class AskedBytes(io.RawIOBase):
    """The decoder's end of a `Source`: a file whose bytes are asked for over a socket."""

    def __init__(self, fd: int, size: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), BLOCK_BYTES, self._size - self._at))
        if not length:
            return 0
        self._socket.sendall(RANGE.pack(self._at, length))
        got = 0
        with memoryview(buffer) as view:
            while got < length:
                more = self._socket.recv_into(view[got:length])
                if not more:
                    raise ValueError("the recording's bytes stopped coming")
                got += more
        self._at += length
        return length


def main(bounds_json: str, *where: str) -> int:
    bounds = msgspec.json.decode(bounds_json, type=Bounds)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    cpu_s = max(1, int(bounds.cpu_s))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if bounds.background:
        give_way()
    out = sys.stdout.buffer

    def tell(info: Info) -> None:
        out.write(frame(msgspec.json.encode(info)))

    file: Any = Path(where[0])
    if len(where) == 2:
        file = io.BufferedReader(AskedBytes(int(where[0]), int(where[1])), BLOCK_BYTES)
    try:
        for pcm in decode_telling(file, bounds, tell):
            out.write(pcm)
    except Undecodable as error:
        out.flush()
        sys.stderr.buffer.write(msgspec.json.encode((error.code, str(error))))
        return 1
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
