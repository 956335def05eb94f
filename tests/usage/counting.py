"""A process that counts and writes until it is killed: `counting.py DATABASE_URL WRITE_S`.

It says how much it has counted, and when by the monotonic clock of the machine.
"""

import asyncio
import sys
import time

from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database
from serve_app.usage import ledger
from serve_app.usage.ledger import Ledger
from serve_app.usage.meter import Counted, Meter
from serve_app.usage.table import today

STEP_S = 0.005


async def count(url: str) -> None:
    meter = Meter(today)
    running = asyncio.create_task(Ledger(meter, Database(url)).run())
    for amount in range(1, 1_000_000):
        assert not running.done()
        for key in ("k1", "k2"):
            meter.add(Principal("acme", key), Counted.AUDIO, 1)
        print(amount, time.monotonic(), flush=True)
        await asyncio.sleep(STEP_S)


if __name__ == "__main__":
    ledger.WRITE_S = float(sys.argv[2])
    asyncio.run(count(sys.argv[1]))
