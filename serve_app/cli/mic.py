"""`voxray mic`: captions of the microphone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from deployments.interfaces import RATE
from serve_app.cli import console
from serve_app.cli.captions import Captions
from serve_app.cli.client import run_session
from serve_app.cli.devices import microphone

BLOCK_MS = 100


def caption_microphone(server: str, start: dict[str, Any], seconds: float | None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_caption(server, start, seconds))


async def _caption(server: str, start: dict[str, Any], seconds: float | None) -> None:
    blocks = microphone(RATE, BLOCK_MS, seconds)
    captions = Captions("listening", seconds)
    first = await anext(blocks)  # a missing microphone is reported before a missing server

    async def pcm() -> AsyncIterator[bytes]:
        yield first
        async for block in blocks:
            yield block

    with captions.shown():
        await run_session(server, start, pcm(), captions.on_event, realtime=False)
    if not console.is_terminal:
        for final in captions.finals:
            print(final["text"])
