"""The file of static keys, read again when it changes."""

import asyncio
import logging
from pathlib import Path

from serve_app.identity.principal import Ended
from serve_app.identity.static_keys import StaticKeys, from_file, state_of

log = logging.getLogger("voxray.identity")

POLL_S = 1.0


class KeyFile:
    """A file that is wrong after a change, or gone, leaves the last keys valid."""

    def __init__(self, path: str) -> None:
        """Raises `ValueError`."""
        self._path = Path(path).expanduser()
        self._state = state_of(self._path)
        self.keys: StaticKeys = from_file(self._path)

    async def run(self, ended: Ended) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if gone := await asyncio.to_thread(self._look):
                ended(gone)

    def _look(self) -> set[str]:
        """The ids of keys that are not in it any more. Blocks."""
        state = state_of(self._path)
        if state == self._state:
            return set()
        self._state = state
        before = self.keys
        try:
            self.keys = from_file(self._path)
        except ValueError:
            log.warning("key_file_refused")
        return {it.key for it in set(before.values()) - set(self.keys.values())}
