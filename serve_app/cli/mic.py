"""`voxray mic`: captions of the microphone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from deployments.interfaces import RATE
from serve_app.cli import DONE, FAILED, NO_SERVER, complain, console
from serve_app.cli.captions import Captions
from serve_app.cli.client import NoServer, SessionFailed, run_session
from serve_app.cli.devices import NoDevice, microphone

BLOCK_MS = 100


def caption_microphone(server: str, start: dict[str, Any], seconds: float | None) -> int:
    try:
        asyncio.run(_caption(server, start, seconds))
    except NoDevice as error:
        complain(str(error))
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
    blocks = microphone(RATE, BLOCK_MS, seconds)
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
