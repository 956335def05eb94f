"""S2: keys that are none, stand in the wrong place, are huge or come in thousands, on real sockets."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from serve_app.config import Config
from serve_app.identity.api_key import ShownKey
from tests.fakes import served
from tests.identity.keys import bearer, key_of, with_keys

KEY = key_of("acme")
HUGE = "k" * 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("hostile")
    args = {"profile": "sim", "storage": {"directory": str(folder)}}
    with served(with_keys(Config.model_validate(args), "acme")) as address:
        yield address, folder / "audit.log"


HOSTILE: dict[str, tuple[str, list[str]]] = {
    "none": ("", []),
    "empty": ("", ["Authorization: Bearer "]),
    "no scheme": ("", [f"Authorization: {KEY}"]),
    "Basic": ("", [f"Authorization: Basic {KEY}"]),
    "Basic beside a valid one": ("", ["Authorization: Basic YTpi", f"x-api-key: {KEY}"]),
    "in the URL": (f"?api_key={KEY}", []),
    "in the URL beside a valid one": (f"?x=1&token={KEY}", [f"Authorization: Bearer {KEY}"]),
    "in the URL, escaped": (f"?api%5Fkey={KEY}", []),
    "in a cookie": ("", [f"Cookie: api_key={KEY}"]),
    "two different": ("", [f"Authorization: Bearer {KEY}", "x-api-key: vx_other"]),
    "twice, different": ("", [f"x-api-key: {KEY}", "x-api-key: vx_other"]),
    "a part": ("", [f"Authorization: Bearer {KEY[:-1]}"]),
    "other letters": ("", [f"Authorization: Bearer {KEY.upper()}"]),
    "more than it": ("", [f"Authorization: Bearer {KEY} {KEY}"]),
    "unsigned": ("", ["Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."]),
    "unsigned secret": ("", ["Authorization: Bearer ek_eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."]),
}
UPGRADE = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
UPGRADE += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]


async def asked(address: str, path: str, headers: list[str]) -> tuple[int, bytes]:
    """Byte for byte, as no client library would send it."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    lines = [f"GET {path} HTTP/1.1", f"Host: {address}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, fields = int(head.split()[1]), head.lower().split(b"\r\n")
        length = next((it for it in fields if it.startswith(b"content-length:")), b":0")
        return status, await reader.readexactly(int(length.split(b":")[1]))
    finally:
        writer.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_s2_it_is_refused_and_not_quoted(server: tuple[str, Path], name: str) -> None:
    address, _ = server
    query, headers = HOSTILE[name]
    for path, more in (
        ("/v1/jobs", []),
        ("/v1/transcribe/stream", UPGRADE),
        ("/v1/realtime", UPGRADE),
        ("/ws", UPGRADE),
        ("/socket/", [] if "URL" in name or headers else ["x-api-key: none"]),
    ):
        status, body = asyncio.run(asked(address, path + query, [*headers, *more]))
        if path == "/socket/" and name in ("empty", "in a cookie"):
            continue  # the key may come later
        assert status == 401, (path, body)
        code = json.loads(body)["error"]["code"]
        assert code in ("missing_api_key", "invalid_api_key") and KEY.encode() not in body


@pytest.mark.parametrize("header", ["Authorization: Bearer ", "x-api-key: ", "Cookie: key="])
def test_s2_a_huge_header_costs_nobody_anything(server: tuple[str, Path], header: str) -> None:
    address, _ = server

    async def ask() -> None:
        for path, more in (("/v1/jobs", []), ("/v1/realtime", UPGRADE)):
            status = 400
            with_it = [f"{header}{HUGE}", *more]
            try:
                status, _ = await asked(address, path, with_it)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # it may also hang up
            assert status in (400, 401, 431)
        assert (await asked(address, "/v1/jobs", [f"x-api-key: {KEY}"]))[0] == 200

    asyncio.run(ask())


def test_s2_a_thousand_guesses_at_once_find_nothing_and_disturb_nobody(
    server: tuple[str, Path],
) -> None:
    address, audit = server
    guesses = 1_000

    async def guess(number: int, at_once: asyncio.Semaphore) -> int:
        shown = ShownKey(f"{number:012}", "0" * 43) if number % 2 else f"guess-{number:030}"
        async with at_once:
            return (await asked(address, "/v1/jobs", [f"Authorization: Bearer {shown}"]))[0]

    async def story() -> list[float]:
        loop, at_once = asyncio.get_running_loop(), asyncio.Semaphore(200)
        uri = f"ws://{address}/v1/transcribe/stream"
        waits: list[float] = []
        async with connect(uri, additional_headers=bearer("acme")) as live:
            await live.recv()
            guessing = asyncio.gather(*(guess(number, at_once) for number in range(guesses)))
            while not guessing.done():
                began = loop.time()
                await live.send('{"type":"keepalive"}')
                await asyncio.wait_for(live.recv(), 30)
                waits.append(loop.time() - began)
                await asyncio.sleep(0.02)
            assert set(await guessing) == {401}
        return waits

    before = audit.read_text().count("\n") if audit.exists() else 0
    waits: list[Any] = sorted(asyncio.run(story()))
    assert waits[len(waits) // 2] < 0.25
    assert audit.read_text().count("\n") - before < 10, "strangers do not fill the audit log"
