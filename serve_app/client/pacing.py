"""Audio at the speed of speech."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator


async def paced(audio: AsyncIterable[bytes], bytes_per_s: int = 32_000) -> AsyncIterator[bytes]:
    """Each piece when a microphone would have it; the default is 16 kHz mono `pcm_s16le`."""
    loop = asyncio.get_running_loop()
    began, recorded = loop.time(), 0
    async for piece in audio:
        recorded += len(piece)
        await asyncio.sleep(began + recorded / bytes_per_s - loop.time())
        yield piece
