"""What commands share that work on the database itself, beside servers or without."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from serve_app.cli import Failure, console
from serve_app.cli.config_file import settings, validated
from serve_app.config import Config
from serve_app.errors import ClientError
from serve_app.extras import MissingExtra
from serve_app.jobs.database import Database
from serve_app.observability.audit import entry
from serve_app.observability.audit_file import append

Result = TypeVar("Result")


def configuration(file: Path) -> Config:
    """Raises `Failure`."""
    return validated(file, settings(file, None, None, None)[0])


def ask(config: Config, do: Callable[[Database], Awaitable[Result]]) -> Result:
    """Raises `Failure`, and what `do` raises."""

    async def ask_and_close() -> Result:
        database = Database(config.storage.database_url)
        try:
            return await do(database)
        finally:
            await database.close()

    try:
        return asyncio.run(ask_and_close())
    except (ClientError, MissingExtra) as error:
        raise Failure(str(error)) from error


def record(config: Config, command: str, event: str, **fields: Any) -> None:
    """Write to the audit log who did it."""
    try:
        append(config.audit_file, entry(event, {**fields, "by": f"{command}, {_person()}"}))
    except OSError as error:
        console.print(f"[yellow]warning: {config.audit_file} was not written: {error.strerror}")


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
