"""What ingress replicas tell each other of their limits, in Redis.

What is open is a number for each replica. Its entry ends by itself when the replica does not renew
it, so a replica that is killed leaves nothing behind. Requests are counted by the library `limits`.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from serve_app.extras import REDIS, module_of
from serve_app.limits.window import WINDOW_S

CONNECTIONS = 32
TIMEOUT_S = 0.5
ENTRY_S = 15.0
"""How long what a replica has said is true without being said again."""

ROWS_AT_ONCE = 200
ANY_NUMBER = 10**15
PREFIX = "voxray"

REPORT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replica, entry_ms = ARGV[1], tonumber(ARGV[2])
local answers = {}
for at, key in ipairs(KEYS) do
  local count, limit = tonumber(ARGV[1 + 2 * at]), tonumber(ARGV[2 + 2 * at])
  local before, elsewhere = 0, 0
  local entries = redis.call('HGETALL', key)
  for each = 1, #entries, 2 do
    local held, till = string.match(entries[each + 1], '(%d+) (%d+)')
    if tonumber(till) < now then
      redis.call('HDEL', key, entries[each])
    elseif entries[each] == replica then
      before = tonumber(held)
    else
      elsewhere = elsewhere + tonumber(held)
    end
  end
  local granted = count
  if limit > 0 then
    granted = math.min(count, math.max(before, limit - elsewhere))
  end
  if granted > 0 then
    redis.call('HSET', key, replica, string.format('%d %d', granted, now + entry_ms))
    redis.call('PEXPIRE', key, entry_ms)
  else
    redis.call('HDEL', key, replica)
  end
  answers[at] = {granted, elsewhere}
end
return answers
"""
"""Who comes first gets what is left; what a replica had before, it keeps."""


class Opened(NamedTuple):
    """What is open on a replica."""

    name: str
    """Of what is limited, the same on all replicas."""
    held: int
    limit: int = 0
    """0: none."""


class Granted(NamedTuple):
    held: int
    """How many this replica may have open."""
    elsewhere: int
    """How many the others have."""


class SharedStore:
    """Every method raises an error of any kind while Redis is away."""

    def __init__(self, url: str, replica: str) -> None:
        """Raises `MissingExtra`, and `ValueError` for what is no URL of Redis."""
        module_of(REDIS)
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._replica = replica
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._report = Redis(connection_pool=self._pool).register_script(REPORT)
        self._requests = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )

    async def report(self, rows: Sequence[Opened]) -> list[Granted]:
        """Say what is open here, all of it."""
        answers: list[Granted] = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            answers += await self._reported(rows[first : first + ROWS_AT_ONCE])
        return answers

    async def take(self, name: str, most: int, requests: int = 1) -> bool:
        """Count requests of a minute, unless there would be more than `most`; a negative number
        gives them back."""
        return await self._requests.acquire_sliding_window_entry(
            name, most, int(WINDOW_S), requests
        )

    async def counted(self, name: str, requests: int) -> float:
        """Count requests that were let in; returns how many there were in the last minute."""
        if requests:
            await self.take(name, ANY_NUMBER, requests)
        before, rest_s, now, _ = await self._requests.get_sliding_window(name, int(WINDOW_S))
        return before * rest_s / WINDOW_S + now

    async def close(self) -> None:
        await self._pool.disconnect()

    async def _reported(self, rows: Sequence[Opened]) -> list[Granted]:
        keys = [f"{PREFIX}:open:{row.name}" for row in rows]
        numbers = [number for row in rows for number in (row.held, row.limit)]
        asked: Awaitable[Any] = self._report(
            keys=keys, args=[self._replica, int(ENTRY_S * 1000), *numbers]
        )
        return [Granted(*answer) for answer in await asked]
