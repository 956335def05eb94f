"""Calls to Ray's head. They block, and without a head they do so for minutes: they have threads of
their own, and whoever waits for one waits for a few seconds."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serve_app.errors import ClientError

log = logging.getLogger("voxray.cluster")

T = TypeVar("T")
PATIENCE_S = 10.0
_threads = ThreadPoolExecutor(4, "head")


class HeadUnavailable(ClientError):
    """Ray's head does not answer: the state of the cluster can be neither read nor changed."""

    def __init__(self) -> None:
        super().__init__("head_unavailable", "Ray's head does not answer; retry later", 5)


async def ask_head(question: Callable[..., T], *args: object) -> T:
    """What it answers. Raises `HeadUnavailable`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await loop.run_in_executor(_threads, question, *args)
    except Exception as error:  # Ray raises many kinds of errors
        log.warning("head_silent", extra={"cause": type(error).__name__})
        raise HeadUnavailable() from error
