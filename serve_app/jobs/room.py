"""How much a tenant, or one of its keys, may still submit: waiting jobs and stored bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.errors import ClientError
from serve_app.jobs.job import JobState
from serve_app.jobs.tables import jobs


class Room(NamedTuple):
    """Of a tenant, or of a key."""

    key: str
    """"": of the tenant, with all its keys."""
    waiting: int
    """Jobs; 0: no limit."""
    stored: int
    """Bytes; 0: no limit."""


def full(room: Room) -> ClientError:
    whose = "this key" if room.key else "this tenant"
    reason = f"stored_bytes: {whose} may store {room.stored} bytes of recordings; delete some jobs"
    return ClientError("quota_exceeded", reason)


def too_many_jobs(most: int) -> ClientError:
    return ClientError("too_many_jobs", f"{most} jobs are already waiting; retry later", 60)


async def check_room(
    connection: AsyncConnection, tenant: str, rooms: Sequence[Room], size: int
) -> list[tuple[int, Room]]:
    """How many bytes are free, where they are limited. Raises `ClientError` unless a recording of
    `size` bytes has room."""
    free = []
    for room in rooms:
        of = (jobs.c.tenant == tenant) & ((jobs.c.key == room.key) if room.key else sa.true())
        if room.waiting and await _waiting(connection, of) >= room.waiting:
            raise too_many_jobs(room.waiting)
        if room.stored:
            free.append((room.stored - await _stored(connection, of), room))
    check_size(size, free)
    return free


def check_size(size: int, free: Sequence[tuple[int, Room]]) -> None:
    """Raises `ClientError`."""
    for bytes_, room in free:
        if size > bytes_:
            raise full(room)


async def _waiting(connection: AsyncConnection, of: sa.ColumnElement[bool]) -> int:
    counted = sa.select(sa.func.count()).select_from(jobs)
    return await connection.scalar(counted.where(of, jobs.c.state == JobState.QUEUED)) or 0


async def _stored(connection: AsyncConnection, of: sa.ColumnElement[bool]) -> int:
    """The audio of a cancelled job is deleted."""
    kept = jobs.c.state != JobState.CANCELLED
    summed = sa.select(sa.func.sum(jobs.c.size)).where(of, kept)
    return int(await connection.scalar(summed) or 0)
