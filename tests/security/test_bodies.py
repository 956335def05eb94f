"""Bodies on their way in: what is too large, too late or too slow, and whom a slow one keeps out."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from starlette.types import Message

from loadtest.speech import wav
from serve_app.config import Config, Limits
from serve_app.errors import ClientError
from serve_app.security.bodies import Body, BodyBounds, whole
from tests.fakes import served
from tests.waiting import wait_for

BOUNDS = BodyBounds(10_000, 5.0, 1000, 0.2, "upload_too_large")


def body_of(*pieces: bytes | float, bounds: BodyBounds = BOUNDS) -> Body:
    """A body in pieces; a number is a pause of the client, in seconds."""
    left = list(pieces)

    async def receive() -> Message:
        while left and isinstance(pause := left[0], float):
            left.pop(0)
            await asyncio.sleep(pause)  # real time: the bounds are asyncio's timeouts
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Body(receive, bounds)


async def refusal(*pieces: bytes | float, **bounds: Any) -> ClientError:
    with pytest.raises(ClientError) as refused:
        await whole(body_of(*pieces, bounds=BOUNDS._replace(**bounds)))
    return refused.value


def test_a_body_at_the_least_pace_is_taken() -> None:
    async def go() -> None:
        pieces = [it for _ in range(10) for it in (0.05, bytes(100))]
        assert len(await whole(body_of(*pieces))) == 1000

    asyncio.run(go())


def test_a_body_that_drips_or_stands_still_is_refused() -> None:
    async def go() -> None:
        drips = [it for _ in range(100) for it in (0.05, b"x")]
        began = time.monotonic()
        error = await refusal(*drips)
        assert error.code == "idle_timeout" and "at least 1000 bytes a second" in error.message
        still = await refusal(bytes(9000), 30.0, b"x")
        assert still.code == "idle_timeout", "what came fast earns no longer pause"
        assert time.monotonic() - began < 2

    asyncio.run(go())


def test_a_body_has_a_size_and_a_time_in_all() -> None:
    async def go() -> None:
        large = await refusal(*[bytes(1000)] * 11)
        assert large.code == "upload_too_large" and "10000 bytes" in large.message
        pieces = [it for _ in range(50) for it in (0.05, bytes(100))]
        late = await refusal(*pieces, timeout_s=0.3)
        assert late.code == "idle_timeout" and "within 0.3 s" in late.message

    asyncio.run(go())


def test_the_servers_own_pauses_are_not_the_clients() -> None:
    async def go() -> None:
        body = body_of(b"a", b"b", b"c")
        for _ in range(3):
            await asyncio.sleep(0.15)  # three times that is beyond the client's bound
            await body()
        assert (await body())["type"] == "http.disconnect", (
            "after the body: whether the client left"
        )

    asyncio.run(go())


@contextmanager
def uploading(address: str, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Uploads that have begun and do not go on."""
    host, port = address.split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nRIFF"
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(count)]
    try:
        for it in slow:
            it.sendall(head.encode())
        yield slow
    finally:
        for it in slow:
            it.close()


def limited(**limits: Any) -> Config:
    return Config(profile="sim", limits=Limits(**limits))


def transcribed(address: str, body: bytes) -> httpx.Response:
    return httpx.post(f"http://{address}/v1/transcribe", content=body, timeout=20)


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v1/audio/transcriptions"])
def test_slow_uploads_keep_nobody_from_being_transcribed(path: str, talk: bytes) -> None:
    with served(limited(max_recordings=1)) as address, uploading(address, path, 8):
        answer = transcribed(address, wav(talk))
        assert answer.status_code == 200 and answer.json()["text"]


def test_slow_uploads_are_cut_and_their_places_come_back(talk: bytes) -> None:
    config = limited(max_uploads=2, slow_body_s=2.0)
    with served(config) as address, uploading(address, "/v1/transcribe", 2) as slow:
        deadline = time.monotonic() + 1.8
        while (refused := transcribed(address, wav(talk))).status_code == 200:
            assert time.monotonic() < deadline, "the uploads have all places"
        assert refused.json()["error"]["code"] == "too_many_recordings"
        assert all(it.recv(100).startswith(b"HTTP/1.1 408") for it in slow)
        assert transcribed(address, wav(talk)).status_code == 200


def test_a_json_body_that_drips_is_refused() -> None:
    with (
        served(limited(slow_body_s=0.3)) as address,
        uploading(address, "/v1/chat/completions", 1) as (slow,),
    ):
        answer = slow.recv(4000)
        assert answer.startswith(b"HTTP/1.1 408") and b"idle_timeout" in answer


@pytest.mark.parametrize(
    "path", ["/v1/transcribe", "/v1/audio/transcriptions", "/v1/jobs", "/v1/chat/completions"]
)
def test_a_client_that_goes_away_in_its_body_is_no_error_of_the_server(path: str) -> None:
    def counted() -> tuple[int, dict[str, int]]:
        metrics = httpx.get(f"http://{address}/v1/metrics").json()
        aborted = metrics["voxray_requests"] if "voxray_requests" in metrics else metrics
        return json.dumps(aborted).count("aborted"), metrics["errors"]

    with served() as address:
        host, port = address.split(":")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        gone = socket.create_connection((host, int(port)))
        gone.sendall(head.encode() + b"--b\r\n")
        gone.close()
        wait_for(lambda: counted()[0])
        assert "internal_error" not in counted()[1]
