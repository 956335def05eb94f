"""A network that cuts connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def cutting(address: str, *cuts: int) -> AsyncIterator[str]:
    """The address of a proxy in front of the server at `address`. It ends its connections after so
    many bytes from the client, one after the other; those beyond `cuts` hold."""
    host, port = address.split(":")
    left = list(cuts)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: float) -> None:
        while most > 0 and (data := await source.read(1 << 14)):
            most -= len(data)
            sink.write(data)
            await sink.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = left.pop(0) if left else float("inf")
        from_server, to_server = await asyncio.open_connection(host, int(port))
        up = asyncio.create_task(copy(reader, to_server, most))
        down = asyncio.create_task(copy(from_server, writer, float("inf")))
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        for end in (writer, to_server):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())
