"""Retries an operation while its store is unavailable or full, without limit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serve_app.backoff import backoff_s
from serve_app.errors import ClientError

log = logging.getLogger("voxray.jobs")

PASSING = ("storage_unavailable", "storage_full")
FIRST_RETRY_S, SLOWEST_RETRY_S = 1.0, 15.0

Result = TypeVar("Result")


async def persistently(do: Callable[[], Awaitable[Result]]) -> Result:
    """The result; a running job does not fail because its store is unavailable."""
    attempt = 0
    while True:
        try:
            return await do()
        except ClientError as error:
            if error.code not in PASSING:
                raise
            attempt += 1
            delay_s = backoff_s(FIRST_RETRY_S, attempt, SLOWEST_RETRY_S)
            fields = {"code": error.code, "delay_s": round(delay_s, 1)}
            log.warning("storage_failed", extra=fields)
            await asyncio.sleep(delay_s)
