"""A flood of recordings: clients that post one after the other, and come back at once when refused.

Run as a process: `flood URL AFTER_S SECONDS AT_ONCE`; counts by status as JSON on stdout.
"""

import asyncio
import json
import sys
from collections import Counter

import httpx2 as httpx

from loadtest.speech import conversation, wav

RECORDING_S = 10
AGAIN_S = 0.2
"""After a refusal; far sooner than `Retry-After` asks for."""


async def post(
    client: httpx.AsyncClient, url: str, body: bytes, until: float, statuses: Counter[str]
) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        answer = await client.post(url, files={"file": ("speech.wav", body)})
        statuses[str(answer.status_code)] += 1
        if answer.status_code != 200:
            await asyncio.sleep(AGAIN_S)


async def main(url: str, after_s: float, seconds: float, at_once: int) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time() + after_s
    statuses: Counter[str] = Counter()
    body = wav(conversation()[: RECORDING_S * 32_000])
    async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as tasks:
        await asyncio.sleep(begin - loop.time())
        for _ in range(at_once):
            tasks.create_task(post(client, url, body, begin + seconds, statuses))
    print(json.dumps(statuses))


if __name__ == "__main__":
    address, after, length, clients = sys.argv[1:]
    asyncio.run(main(address, float(after), float(length), int(clients)))
