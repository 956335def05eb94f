"""`voxray keys create | list | revoke | rotate`: works on the database, beside servers or without.

A key is printed once, alone on stdout; everything else goes to stderr.
"""

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.cli import Failure, WrongUsage, console
from serve_app.cli.database import Result, ask, configuration, record
from serve_app.cli.duration import seconds_of, seconds_or_never
from serve_app.config import Config
from serve_app.config.auth import AuthConfig
from serve_app.identity.api_key import Peppers, parsed_key
from serve_app.identity.api_keys import ApiKey, ApiKeys, NewKey, NoSuchKey, Order, key_name
from serve_app.identity.peppers import peppers_of
from serve_app.identity.principal import ALL, EVERYBODY, Scope
from serve_app.identity.tenant import tenant_name


def order(tenant: str, scopes: str, expires: str, name: str) -> Order:
    """Raises `WrongUsage`."""
    try:
        lifetime_s = seconds_or_never(expires)
        return Order(tenant_name(tenant), _scopes(scopes), lifetime_s, key_name(name))
    except ValueError as error:
        raise WrongUsage(str(error)) from error


def create_key(file: Path, wanted: Order) -> None:
    config = configuration(file)
    peppers = _peppers(config.auth)
    new = _ask(config, lambda keys: keys.create(wanted, peppers))
    _tell_created(config, new)
    _show(new)
    if config.auth.mode != "keys":
        console.print("[yellow]servers accept it only with `auth: keys` in their configuration")


def list_keys(file: Path, as_json: bool) -> None:
    keys = _ask(configuration(file), lambda keys: keys.all())
    if as_json:
        print(json.dumps([key.shown(time.time()) for key in keys]))
    else:
        Console(highlight=False).print(_table(keys))


def revoke_key(file: Path, id_: str) -> None:
    config = configuration(file)
    key = _ask(config, lambda keys: keys.revoke(_id(id_)))
    _record(config, "key_revoked", id=key.id, tenant=key.tenant)
    console.print(f"revoked: {_described(key)}; servers refuse it within 5 s")


def rotate_key(file: Path, id_: str, overlap: str, expires: str) -> None:
    config = configuration(file)
    peppers = _peppers(config.auth)
    try:
        overlap_s = seconds_of(overlap)
        lifetime_s: float | Literal["same"] | None
        lifetime_s = seconds_or_never(expires) if expires else "same"
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    new = _ask(config, lambda keys: keys.rotate(_id(id_), overlap_s, lifetime_s, peppers))
    until = _date(new.row.created + overlap_s)
    fields = {"replaced": _id(id_), "until": until, "tenant": new.row.tenant}
    _record(config, "key_rotated", id=new.row.id, **fields)
    _show(new)
    console.print(f"the old key is valid until {until}")


def print_first_key(config: Config) -> None:
    """One that may do everything, if no key was ever made. Raises `ValueError`."""
    peppers = peppers_of(config.auth)
    wanted = Order(EVERYBODY.tenant, ALL, name="first")
    try:
        new = _ask(config, lambda keys: keys.create_first(wanted, peppers))
    except Failure as failure:
        console.print(f"[yellow]warning: whether there are keys is not known: {failure}")
        return
    if new:
        _tell_created(config, new)
        console.print("there are no keys yet, so this is the first one:")
        console.print(f"  {new.shown}", markup=False)
        _explain(new.row)


def _ask(config: Config, do: Callable[[ApiKeys], Awaitable[Result]]) -> Result:
    """Raises `Failure`."""
    try:
        return ask(config, lambda database: do(ApiKeys(database)))
    except NoSuchKey as none:
        raise Failure(f"there is no valid key {str(none)!r}; see: voxray keys list") from none


def _peppers(auth: AuthConfig) -> Peppers:
    try:
        return peppers_of(auth)
    except ValueError as error:
        raise Failure(str(error)) from error


def _id(text: str) -> str:
    """Also of a key that leaked, as it was found."""
    key = parsed_key(text)
    return key.id if key else text[:40]


def _scopes(text: str) -> frozenset[Scope]:
    words = {word.strip() for word in text.split(",")}
    if unknown := words - set(ALL):
        named = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"there is no scope {named}; there are: {', '.join(Scope)}")
    return frozenset(map(Scope, words))


def _show(new: NewKey) -> None:
    print(new.shown)
    _explain(new.row)


def _explain(key: ApiKey) -> None:
    console.print(f"key {_described(key)}, {_until(key)}. Keep it: it cannot be shown again")


def _described(key: ApiKey) -> str:
    name = f" ({escape(key.name)})" if key.name else ""
    return f"{key.id}{name} of tenant {key.tenant}: {_words(key)}"


def _words(key: ApiKey) -> str:
    return ", ".join(scope for scope in Scope if scope in key.scopes)


def _until(key: ApiKey) -> str:
    return "valid until it is revoked" if key.expires is None else f"until {_date(key.expires)}"


def _date(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(keys: Sequence[ApiKey]) -> Table:
    table = Table("id", "tenant", "scopes", "state", "expires", "last used", "name", box=None)
    for key in keys:
        times = _date(key.expires) or "never", _date(key.last_used) or "never"
        table.add_row(
            key.id, key.tenant, _words(key), key.state(time.time()), *times, escape(key.name)
        )
    return table


def _tell_created(config: Config, new: NewKey) -> None:
    key = new.row
    fields = {"name": key.name, "scopes": sorted(key.scopes), "expires": _date(key.expires)}
    _record(config, "key_created", id=key.id, tenant=key.tenant, **fields)


def _record(config: Config, event: str, **fields: Any) -> None:
    record(config, "voxray keys", event, **fields)
