"""The table of keys: made, replaced and revoked by `voxray keys`, read by every ingress replica."""

import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from serve_app.identity.api_key import (
    ID_CHARS,
    ID_LETTERS,
    LETTERS,
    SECRET_CHARS,
    Peppers,
    ShownKey,
)
from serve_app.identity.principal import Principal, Scope
from serve_app.jobs.database import Database, now
from serve_app.jobs.tables import api_keys

PAGE = 500
MOST_NAME = 80
USED_EVERY_S = 60.0
"""How exactly it is known when a key was last used."""


class ApiKey(NamedTuple):
    """A row. Times are seconds since 1970."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    digest: bytes
    pepper: str
    """The id of the pepper in `digest`."""
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None
    revision: int = 1
    """How many times it was written, but for `last_used`."""
    changed: float = 0.0

    @property
    def principal(self) -> Principal:
        return Principal(self.tenant, self.id, self.scopes)

    @property
    def lifetime_s(self) -> float | None:
        return None if self.expires is None else self.expires - self.created

    def shown(self, at: float) -> dict[str, Any]:
        """As JSON, without what is secret; `at`: now."""
        fields = ("id", "tenant", "name", "created", "expires", "revoked", "last_used")
        return {
            **{name: getattr(self, name) for name in fields},
            "scopes": sorted(self.scopes),
            "state": self.state(at),
        }

    def state(self, at: float) -> str:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= at else "valid"


def key_name(text: str) -> str:
    """Raises `ValueError` for what is no name of a key."""
    if len(text) > MOST_NAME or not text.isprintable():
        raise ValueError(f"a name has at most {MOST_NAME} printable characters")
    return text


class Order(NamedTuple):
    """A key to be made."""

    tenant: str
    scopes: Collection[Scope]
    lifetime_s: float | None = None
    """None: it does not expire."""
    name: str = ""


class NewKey(NamedTuple):
    row: ApiKey
    shown: ShownKey
    """Nobody can read it again."""


class NoSuchKey(Exception):
    """There is none with this id, or it is not valid any more."""


Version = tuple[int, int, float]
"""Of the whole table: how many rows, how often they were written, and when last. It is another one
after every change but that of `last_used`."""


def version_of(keys: Collection[ApiKey]) -> Version:
    changed = max((key.changed for key in keys), default=0.0)
    return len(keys), sum(key.revision for key in keys), changed


class ApiKeys:
    """Every method raises `ClientError` if the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, order: Order, peppers: Peppers) -> NewKey:
        async with self._database.write() as connection:
            return await _insert(connection, order, peppers)

    async def create_first(self, order: Order, peppers: Peppers) -> NewKey | None:
        """None if there is a key already, even one that is not valid any more."""
        async with self._database.write() as connection:
            if await connection.scalar(sa.select(sa.func.count()).select_from(api_keys)):
                return None
            return await _insert(connection, order, peppers)

    async def all(self) -> list[ApiKey]:
        """The oldest first."""
        found = [key async for page in self.pages() for key in page]
        return sorted(found, key=lambda key: key.created)

    async def revoke(self, id_: str) -> ApiKey:
        """Raises `NoSuchKey`. Revoking it again changes nothing."""
        async with self._database.write() as connection:
            await _change(connection, id_, api_keys.c.revoked.is_(None), {"revoked": now()})
            return await _row(connection, id_)

    async def rotate(
        self,
        id_: str,
        overlap_s: float,
        lifetime_s: float | Literal["same"] | None,
        peppers: Peppers,
    ) -> NewKey:
        """A key that may do the same; the old one is valid for `overlap_s` more, at most.

        Raises `NoSuchKey` if the old one is not valid any more.
        """
        async with self._database.write() as connection:
            old = await _row(connection, id_)
            if old.state(await _time(connection)) != "valid":
                raise NoSuchKey(id_)
            for_s = old.lifetime_s if lifetime_s == "same" else lifetime_s
            order = Order(old.tenant, old.scopes, for_s, old.name)
            new = await _insert(connection, order, peppers)
            until = new.row.created + overlap_s
            sooner = (api_keys.c.expires > until) | api_keys.c.expires.is_(None)
            await _change(connection, id_, sooner, {"expires": until})
            return new

    async def version(self) -> Version:
        columns = (
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(api_keys.c.revision), 0),
            sa.func.coalesce(sa.func.max(api_keys.c.changed), 0.0),
        )
        async with self._database.read() as connection:
            keys, revisions, changed = (await connection.execute(sa.select(*columns))).one()
        return int(keys), int(revisions), float(changed)

    async def pages(self) -> AsyncIterator[list[ApiKey]]:
        """All keys, some at a time."""
        last = ""
        while True:
            query = api_keys.select().where(api_keys.c.id > last).order_by(api_keys.c.id)
            async with self._database.read() as connection:
                rows = (await connection.execute(query.limit(PAGE))).mappings().all()
            yield [_key(row) for row in rows]
            if len(rows) < PAGE:
                return
            last = rows[-1]["id"]

    async def used(self, times: Mapping[str, float]) -> None:
        """When keys were last used, unless another replica has just said so."""
        before = api_keys.c.last_used
        at = sa.bindparam("at", type_=sa.Double)
        stale = before.is_(None) | (before < at - USED_EVERY_S / 2)
        which = (api_keys.c.id == sa.bindparam("key")) & stale
        statement = api_keys.update().where(which).values(last_used=at)
        async with self._database.write() as connection:
            rows = [{"key": id_, "at": at} for id_, at in sorted(times.items())]
            await connection.execute(statement, rows)


async def _insert(connection: Any, order: Order, peppers: Peppers) -> NewKey:
    shown = ShownKey(_random(ID_LETTERS, ID_CHARS), _random(LETTERS, SECRET_CHARS))
    created = await _time(connection)
    lifetime_s = order.lifetime_s
    row = ApiKey(
        id=shown.id,
        tenant=order.tenant,
        name=order.name,
        scopes=frozenset(order.scopes),
        digest=peppers.digest(peppers.newest, shown),
        pepper=peppers.newest,
        created=created,
        expires=None if lifetime_s is None else created + lifetime_s,
        revoked=None,
        last_used=None,
        changed=created,
    )
    values = row._asdict() | {"scopes": " ".join(sorted(order.scopes))}
    await connection.execute(api_keys.insert().values(**values))
    return NewKey(row, shown)


async def _change(connection: Any, id_: str, where: Any, values: dict[str, Any]) -> None:
    changed = {**values, "revision": api_keys.c.revision + 1, "changed": now()}
    await connection.execute(api_keys.update().where(api_keys.c.id == id_, where).values(changed))


async def _row(connection: Any, id_: str) -> ApiKey:
    found = await connection.execute(api_keys.select().where(api_keys.c.id == id_))
    if (row := found.mappings().first()) is None:
        raise NoSuchKey(id_)
    return _key(row)


async def _time(connection: Any) -> float:
    """By the database's clock, which all machines share."""
    return float(await connection.scalar(sa.select(now())))


def _key(row: Any) -> ApiKey:
    values = {name: row[name] for name in ApiKey._fields}
    known = set(Scope) & set(row["scopes"].split())
    return ApiKey(**{**values, "scopes": frozenset(map(Scope, known))})


def _random(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))
