"""Answers that are sent while they are produced, and release their resources when they end."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Send

from serve_app.errors import ClientError

EVENT_STREAM = "text/event-stream"
DONE = b"data: [DONE]\n\n"


class Streamed(StreamingResponse):
    """Always closes its generator: a client that disconnects stops the model."""

    def __init__(
        self,
        body: AsyncGenerator[bytes, None],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._body = body

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self._body.aclose()


async def begun(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same generator after its first item; a failure before that becomes an error answer.

    Raises what the generator raises.
    """
    first = await anext(body, b"")
    return _chained(first, body)


async def _chained(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def with_errors(
    events: AsyncIterator[bytes], done: bytes = b""
) -> AsyncGenerator[bytes, None]:
    """A failure midway becomes an event, and the stream always ends with `done`."""
    sent = False
    try:
        async for piece in events:
            yield piece
            sent = True
    except ClientError as error:
        if not sent:
            raise
        yield event(error.body())
    yield done
