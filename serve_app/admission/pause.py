"""Where recordings wait while live speech needs everything."""

import asyncio

from serve_app.errors import ClientError

RETRY_AFTER_S = 10


class Pause:
    """Open until `begin`."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._over.set()

    def set(self, is_paused: bool) -> None:
        if is_paused:
            self._over.clear()
        else:
            self._over.set()

    async def over(self, within_s: float | None = None) -> None:
        """Wait for its end. Raises `ClientError` when that takes longer than `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self._over.wait()
        except TimeoutError as error:
            reason = "live speech needs everything; retry later"
            raise ClientError("overloaded", reason, RETRY_AFTER_S) from error
