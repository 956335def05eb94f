"""`voxray storage status | rotate-key`: works on the database itself, beside servers or without."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from serve_app.cli import Failure, console
from serve_app.cli.config_file import settings, validated
from serve_app.config import StorageConfig
from serve_app.errors import ClientError
from serve_app.extras import MissingExtra
from serve_app.jobs.database import Database
from serve_app.jobs.keyring import Keyring
from serve_app.jobs.rotation import PLAIN, Rotated, Rotation, key_counts
from serve_app.jobs.storage_keys import keys_of


def show_status(file: Path, as_json: bool) -> None:
    storage = _storage(file)
    ids = keys.ids if (keys := _keys(storage)) else []
    counts = asyncio.run(_counted(storage))
    if as_json:
        print(json.dumps({"keys": ids, "counts": counts}))
    else:
        Console(highlight=False).print(_table(ids, counts))


def rotate(file: Path) -> None:
    storage = _storage(file)
    if (keys := _keys(storage)) is None:
        where = storage.key_file or f"${storage.key_variable}"
        raise Failure(f"there is no key in {where}: put the new key first, then the old one")
    console.print(f"the newest key is {keys.ids[0]}")
    _say(asyncio.run(_rotated(storage, keys)), keys)


async def _counted(storage: StorageConfig) -> dict[str, Counter[str]]:
    async with _opened(storage) as database:
        return await key_counts(database)


async def _rotated(storage: StorageConfig, keys: Keyring) -> Rotated:
    columns = (TextColumn("encrypting"), BarColumn(), MofNCompleteColumn())
    async with _opened(storage) as database:
        rotation = Rotation(database, keys)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=await rotation.waiting())
            return await rotation.run(lambda rows: progress.advance(task, rows))


def _say(done: Rotated, keys: Keyring) -> None:
    """Raises `Failure` if something is left."""
    changed = ", ".join(f"{count} {kind}" for kind, count in done.changed.items() if count)
    console.print(f"changed: {changed or 'nothing'}")
    if done.missing or done.damaged:
        lost = [f"{count} need the key {id_}" for id_, count in sorted(done.missing.items())]
        lost += [f"{count} {kind} are damaged" for kind, count in done.damaged.items()]
        raise Failure(f"left as it was: {', '.join(lost)}")
    if older := keys.ids[1:]:
        console.print(f"these keys can be removed now: {', '.join(older)}")


def _table(ids: list[str], counts: dict[str, Counter[str]]) -> Table:
    table = Table("key", *counts, "configured", box=None)
    known = {id_ for it in counts.values() for id_ in it} - {*ids, PLAIN}
    for id_ in (*ids, *sorted(known), PLAIN):
        here = (
            "" if id_ == PLAIN else "newest" if [id_] == ids[:1] else "yes" if id_ in ids else "no"
        )
        table.add_row(id_, *(str(it[id_]) for it in counts.values()), here)
    return table


def _storage(file: Path) -> StorageConfig:
    return validated(file, settings(file, None, None, None)[0]).storage


def _keys(storage: StorageConfig) -> Keyring | None:
    """Raises `Failure`."""
    try:
        return keys_of(storage)
    except (ValueError, OSError) as error:
        raise Failure(str(error)) from error


@asynccontextmanager
async def _opened(storage: StorageConfig) -> AsyncIterator[Database]:
    """Raises `Failure`."""
    try:
        database = Database(storage.database_url)
    except MissingExtra as error:
        raise Failure(str(error)) from error
    try:
        yield database
    except ClientError as error:
        raise Failure(str(error)) from error
    finally:
        await database.close()
