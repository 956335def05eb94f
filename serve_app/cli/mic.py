"""`voxray mic`: captions of the microphone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deployments.interfaces import RATE
from serve_app.cli import console
from serve_app.cli.captions import Captions
from serve_app.cli.client import reported
from serve_app.cli.devices import microphone
from serve_app.client import LiveOptions, LiveTranscription

BLOCK_MS = 100


def caption_microphone(server: str, options: LiveOptions, seconds: float | None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_caption(server, options, seconds))


async def _caption(server: str, options: LiveOptions, seconds: float | None) -> None:
    blocks = microphone(RATE, BLOCK_MS, seconds)
    captions = Captions("listening", seconds)
    first = await anext(blocks)  # a missing microphone is reported before a missing server

    async def pcm() -> AsyncIterator[bytes]:
        yield first
        async for block in blocks:
            yield block

    with captions.shown(), reported(server):
        async with LiveTranscription(server, options) as live:
            live.stream(pcm())
            async for event in live:
                captions.on_event(event)
    if not console.is_terminal:
        for final in captions.finals:
            print(final.text)
