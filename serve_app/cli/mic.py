"""`voxray mic`: captions of the microphone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from deployments.interfaces import RATE
from serve_app.cli import DONE, FAILED, NO_SERVER, complain, console
from serve_app.cli.captions import Captions
from serve_app.cli.client import NoServer, SessionFailed, run_session

BLOCK_FRAMES = RATE // 10
MAX_BLOCKS = 100
"""Ten seconds: past that the newest audio is dropped, and that is said."""


class NoMicrophone(Exception):
    """Neither a device nor the library to reach one."""


def caption_microphone(server: str, start: dict[str, Any], seconds: float | None) -> int:
    try:
        asyncio.run(_caption(server, start, seconds))
    except NoMicrophone as error:
        complain(f"no microphone: {error}")
        return FAILED
    except NoServer as error:
        complain(str(error))
        return NO_SERVER
    except SessionFailed as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        pass
    return DONE


async def _caption(server: str, start: dict[str, Any], seconds: float | None) -> None:
    blocks = _microphone(seconds)
    captions = Captions("listening", seconds)
    first = await anext(blocks)  # say that there is no microphone before asking for a server

    async def pcm() -> AsyncIterator[bytes]:
        yield first
        async for block in blocks:
            yield block

    with captions.shown():
        await run_session(server, start, pcm(), captions.on_event, realtime=False)
    if not console.is_terminal:
        for final in captions.finals:
            print(final["text"])


async def _microphone(seconds: float | None) -> AsyncIterator[bytes]:
    try:
        import sounddevice
    except OSError as error:
        raise NoMicrophone("the PortAudio library is not installed (libportaudio2)") from error
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue(MAX_BLOCKS)

    def put(block: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            return blocks.put_nowait(block)
        console.print("[yellow]the server does not keep up: a block of audio was dropped")

    def heard(block: Any, *_: Any) -> None:
        loop.call_soon_threadsafe(put, bytes(block))

    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        stream = sounddevice.RawInputStream(
            RATE, BLOCK_FRAMES, channels=1, dtype="int16", callback=heard
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoMicrophone("no input device was found") from error
    with stream:
        while time.monotonic() < until:
            yield await blocks.get()
