"""`voxray tenants set | list | show | delete`: settings in the database itself."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from serve_app.cli import Failure, WrongUsage, console
from serve_app.cli.database import ask, configuration, record
from serve_app.config import Config
from serve_app.config.tenants import TenantConfig, TenantLimits
from serve_app.identity.api_key import parsed_key
from serve_app.identity.tenant import tenant_name
from serve_app.limits.settings import EVERY_KEY, TenantSettings
from serve_app.limits.tenant_table import TenantTable, Whose

LIMITS = tuple(TenantLimits.model_fields)
NAMES = (*LIMITS, "weight", "retention_s")
"""A key has limits only."""

SOON = "servers follow within 5 s"


def owner(tenant: str, key: str, each_key: bool) -> Whose:
    """Raises `WrongUsage`."""
    if key and each_key:
        raise WrongUsage("choose one of --key and --each-key")
    known = parsed_key(key)
    try:
        return Whose(tenant_name(tenant), EVERY_KEY if each_key else known.id if known else key)
    except ValueError as error:
        raise WrongUsage(str(error)) from error


def settings(whose: Whose, assigned: Iterable[str]) -> dict[str, float]:
    """`sessions=50` as a setting. Raises `WrongUsage`."""
    given = {name: value for name, _, value in (text.partition("=") for text in assigned)}
    check_names(whose, given)
    limits = {name: given[name] for name in given if name in LIMITS}
    others = {name: given[name] for name in given if name not in LIMITS}
    try:
        found = TenantConfig.model_validate({"limits": limits, **others})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise WrongUsage(f"{first['loc'][-1]}: {first['msg']}") from error
    return found.limits.model_dump(include=set(limits)) | found.model_dump(include=set(others))


def check_names(whose: Whose, names: Collection[str]) -> None:
    """Raises `WrongUsage`."""
    known = LIMITS if whose.key else NAMES
    if unknown := set(names) - set(known):
        raise WrongUsage(f"there is no setting {min(unknown)!r}; there are: {', '.join(known)}")


def set_settings(file: Path, whose: Whose, changed: Mapping[str, float]) -> None:
    config = configuration(file)
    now = ask(config, lambda database: TenantTable(database).set(whose, changed))
    _tell_changed(config, whose, _words(changed))
    console.print(f"{_name(whose)}: {_words(now)}; {SOON}", markup=False)


def delete_settings(file: Path, whose: Whose, names: Sequence[str]) -> None:
    check_names(whose, names)
    config = configuration(file)
    if not ask(config, lambda database: TenantTable(database).delete(whose, names)):
        raise Failure(f"the database has no such settings of {_name(whose)}")
    _tell_changed(config, whose, ", ".join(f"no {name}" for name in names) or "none")
    console.print(f"{_name(whose)}: the configuration applies again; {SOON}", markup=False)


def _tell_changed(config: Config, whose: Whose, words: str) -> None:
    _record(config, "tenant_changed", id=whose.key, settings=words, tenant=whose.tenant)


def _record(config: Config, event: str, **fields: Any) -> None:
    record(config, "voxray tenants", event, **fields)


def list_settings(file: Path, as_json: bool) -> None:
    rows = ask(configuration(file), lambda database: TenantTable(database).read()).rows
    if as_json:
        print(json.dumps([_plain(Whose(*of), rows[of]) for of in rows]))
        return
    table = Table("tenant", "key", "settings", box=None)
    for tenant, key in rows:
        table.add_row(tenant, key, _words(rows[tenant, key]))
    Console(highlight=False).print(table)


def show_settings(file: Path, tenant: str, as_json: bool) -> None:
    """What applies: the configuration, overridden by the database."""
    config = configuration(file)
    all_ = TenantSettings(config.tenants)
    all_.override(ask(config, lambda database: TenantTable(database).read()).rows)
    found = _shown(all_.of(tenant))
    if as_json:
        print(json.dumps([_plain(Whose(tenant, key), found[key]) for key in found]))
        return
    for key in found:
        line = f"{_name(Whose(tenant, key))}: {_words(found[key]) or 'no limit'}"
        Console(highlight=False).print(line, markup=False)


def _shown(found: TenantConfig) -> dict[str, dict[str, float]]:
    """By key, what is set."""
    others = {"weight": found.weight, "retention_s": found.retention_s}
    limits = {"": found.limits, EVERY_KEY: found.key_limits, **found.keys}
    shown = {key: _set(it.model_dump()) for key, it in limits.items()}
    shown[""] |= _set(others)
    return shown


def _set(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value}


def _name(whose: Whose) -> str:
    if whose.key == EVERY_KEY:
        return f"each key of {whose.tenant}"
    return f"key {whose.key} of {whose.tenant}" if whose.key else whose.tenant


def _words(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())


def _plain(whose: Whose, found: Mapping[str, float]) -> dict[str, Any]:
    return {**whose._asdict(), "settings": dict(found)}
