"""After a crash nothing is missing but what came since the last writing, and nothing is twice."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx

from serve_app.config import Config
from serve_app.jobs.database import Database
from serve_app.usage import ledger, table
from serve_app.usage.meter import Counted
from tests.fakes import served
from tests.usage import counting
from tests.usage.served import configured

WRITE_S = 0.3
WRITING_S = 2.0
"""What one writing takes at most, on a busy machine."""


def counted_until_killed(url: str, after_s: float) -> tuple[int, int]:
    """What another process had counted a writing before its end, and at its end."""
    command = [sys.executable, counting.__file__, url, str(WRITE_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        began = process.stdout.readline()
        time.sleep(after_s)
        killed = time.monotonic()
        process.kill()
        whole, _, _ = (began + process.stdout.read()).rpartition("\n")
        said = [line.split() for line in whole.splitlines()]
    safe = [int(amount) for amount, at in said if float(at) < killed - WRITE_S - WRITING_S]
    return safe[-1], int(said[-1][0])


def sums(url: str, tenant: str) -> table.Sums:
    async def read() -> table.Sums:
        database = Database(url)
        async with database.read() as connection:
            found = await table.of_day(connection, tenant, table.today(), "nobody")
        await database.close()
        return found

    return asyncio.run(read())


def test_kill_9_loses_what_was_counted_since_the_last_writing_and_no_more(
    database_url: str,
) -> None:
    counts = [counted_until_killed(database_url, after_s) for after_s in (2.9, 3.3)]
    safe, last = (sum(amounts) for amounts in zip(*counts, strict=True))
    found = sums(database_url, "acme")
    for key in ("k1", "k2"):
        assert 0 < safe <= found[key, Counted.AUDIO] <= last + len(counts)


def test_what_is_lost_is_less_than_a_minute() -> None:
    assert ledger.WRITE_S + 10 < 60


def test_a_server_that_ends_has_written_everything(tmp_path: Path) -> None:
    config: Config = configured(tmp_path)
    with served(config) as address:
        for _ in range(3):
            httpx.get(f"http://{address}/v1/models")
    assert sums(config.storage.database_url, "default") == {("", Counted.REQUESTS): 3}
