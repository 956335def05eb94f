"""Request bodies, bounded in size, total time and minimum rate."""

import asyncio
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from serve_app.config import JobsConfig, Limits
from serve_app.errors import ClientError

FORM_BYTES = 1 << 20
"""A form's size beyond its file."""


class BodyBounds(NamedTuple):
    """The bounds of one body."""

    max_bytes: int
    timeout_s: float
    """For the whole body."""
    bytes_per_s: int
    """The minimum rate, on average over `patience_s`."""
    patience_s: float
    """How long a body may be slower than that, or stall."""
    too_large: str
    """The error code for a larger body."""

    def check(self, size: int) -> None:
        """Raises `ClientError`."""
        if size > self.max_bytes:
            raise ClientError(
                self.too_large, f"the body is too large; the limit is {self.max_bytes} bytes"
            )


def bounds_of_json(limits: Limits) -> BodyBounds:
    return BodyBounds(
        limits.max_json_bytes,
        limits.json_timeout_s,
        limits.min_body_bytes_per_s,
        limits.slow_body_s,
        "message_too_large",
    )


def bounds_of_uploads(limits: Limits, jobs: JobsConfig) -> dict[str, BodyBounds]:
    """By path."""
    pace = limits.min_body_bytes_per_s, limits.slow_body_s, "upload_too_large"
    recording = BodyBounds(limits.max_upload_bytes, limits.upload_timeout_s, *pace)
    job = BodyBounds(jobs.max_upload_bytes + FORM_BYTES, jobs.upload_timeout_s, *pace)
    return {
        "/v1/transcribe": recording,
        "/transcribe/file": recording,
        "/v1/audio/transcriptions": recording,
        "/v1/audio/translations": recording,
        "/v1/jobs": job,
        "/api/upload": job,
        "/api/transcribe/upload": job,
    }


def declared_bytes(headers: Headers) -> int:
    """The Content-Length of a request; 0 without one."""
    declared = headers.get("content-length", "")
    return int(declared[:18]) if declared.isdecimal() else 0


class Body:
    """A body as it arrives. Calling it is ASGI's `receive`, and raises `ClientError`."""

    def __init__(self, receive: Receive, bounds: BodyBounds) -> None:
        self._receive = receive
        self._bounds = bounds
        self._deadline = asyncio.get_running_loop().time() + bounds.timeout_s
        self._credit = bounds.patience_s
        """Seconds left to wait: arriving bytes add to them, waiting subtracts."""
        self._size = 0
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:  # the next message is the disconnect
            return await self._receive()
        message = await self._next()
        size = len(message.get("body", b""))
        self._size += size
        self._credit += size / self._bounds.bytes_per_s
        self._credit = min(self._credit, self._bounds.patience_s)
        self._bounds.check(self._size)
        self._ended = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout_at(min(self._deadline, began + self._credit)):
                return await self._receive()
        except TimeoutError as error:
            raise ClientError("idle_timeout", self._complaint(loop.time())) from error
        finally:
            self._credit -= loop.time() - began

    def _complaint(self, now: float) -> str:
        bounds = self._bounds
        if now >= self._deadline:
            return f"the body did not arrive within {bounds.timeout_s:g} s"
        return (
            f"the body arrives too slowly: send at least {bounds.bytes_per_s} bytes a second, "
            f"measured over {bounds.patience_s:g} s"
        )


async def whole(body: Body) -> bytes:
    """Raises `ClientError`, and `ClientDisconnect` for one that breaks off."""
    taken = bytearray()
    while True:
        message = await body()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        taken += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(taken)
