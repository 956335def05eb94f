"""Work that many await and that runs once."""

import asyncio
from collections.abc import Awaitable, Callable


class Once:
    """The first call runs the work, and others wait. After an exception the next call retries."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._done = False
        self._doing = asyncio.Lock()

    async def __call__(self) -> None:
        async with self._doing:
            if not self._done:
                await self._work()
                self._done = True
