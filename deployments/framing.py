"""Length-prefixed messages: a 4-byte big-endian length and a body.

Used on pipes to child processes, on lanes and on the TCP port. A reader always states the longest
body that it takes, so that four hostile bytes cannot make it reserve gigabytes.
"""

import struct
from asyncio import IncompleteReadError, StreamReader
from typing import BinaryIO

LENGTH = struct.Struct(">I")


class FrameTooLong(Exception):
    """The announced length is above what the reader takes; what follows it cannot be read."""

    def __init__(self, length: int, longest: int) -> None:
        super().__init__(f"a message of {length} bytes; at most {longest} are allowed")
        self.length = length


def frame(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


async def read_length(reader: StreamReader, longest: int) -> int:
    """Of the body that follows. Raises `FrameTooLong`, and `IncompleteReadError` at the end."""
    return _bounded(await reader.readexactly(LENGTH.size), longest)


async def read_frame(reader: StreamReader, longest: int) -> bytes:
    """The next body. Raises `FrameTooLong`, and `IncompleteReadError` at the end."""
    return await reader.readexactly(await read_length(reader, longest))


def read_frame_from(stream: BinaryIO, longest: int) -> bytes | None:
    """The next body of a blocking stream, or None at its end. Raises as `read_frame` does."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    length = _bounded(head, longest)
    body = stream.read(length)
    if len(body) < length:
        raise IncompleteReadError(body, length)
    return body


def _bounded(head: bytes, longest: int) -> int:
    length: int = LENGTH.unpack(head)[0]
    if length > longest:
        raise FrameTooLong(length, longest)
    return length
