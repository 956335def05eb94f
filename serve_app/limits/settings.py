"""The settings of every tenant: the configuration, and what the database has instead. Pure."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ValidationError

from serve_app.config.tenants import DEFAULT, TenantConfig, TenantLimits, tenant_config

EVERY_KEY = "*"
"""In the database, the row of a tenant's `key_limits`; "" is the tenant's own."""

Rows = Mapping[tuple[str, str], Mapping[str, float]]
"""What the database has, by tenant and key: names of settings and their values. A tenant's own
come before those of all its keys, and those before single keys'."""


class TenantSettings:
    """Of one process. Followers are called on every change."""

    def __init__(self, config: Mapping[str, TenantConfig]) -> None:
        self._config = config
        self._settings = dict(config)
        self._rows: Rows = {}
        self._followers: list[Callable[[], None]] = []

    def follow(self, follower: Callable[[], None]) -> None:
        self._followers.append(follower)

    @property
    def names(self) -> Collection[str]:
        """The tenants that have settings of their own."""
        return self._settings.keys() - {DEFAULT}

    def of(self, tenant: str) -> TenantConfig:
        return tenant_config(self._settings, tenant)

    def limits(self, tenant: str, key: str) -> TenantLimits:
        """Of a key; of the tenant, if `key` is ""."""
        settings = self.of(tenant)
        return settings.of_key(key) if key else settings.limits

    def override(self, rows: Rows) -> None:
        """These are the rows of the database now."""
        if rows == self._rows:
            return
        self._rows = rows
        self._settings = dict(self._config)
        for tenant in sorted({tenant for tenant, _ in rows}, key=lambda it: it != DEFAULT):
            self._settings[tenant] = changed(self.of(tenant), rows, tenant)
        for follower in self._followers:
            follower()


def changed(base: TenantConfig, rows: Rows, tenant: str) -> TenantConfig:
    """A tenant's settings, with those of its rows instead. A row that this version of voxray does
    not understand has no effect."""
    settings = base
    for (owner, key), row in rows.items():
        if owner == tenant:
            try:
                settings = TenantConfig.model_validate(_with(settings, key, row))
            except ValidationError:
                continue
    return settings


def _with(settings: TenantConfig, key: str, row: Mapping[str, float]) -> dict[str, Any]:
    tree: dict[str, Any] = settings.model_dump()
    if key == EVERY_KEY:
        tree["key_limits"].update(row)
    elif key:
        tree["keys"].setdefault(key, dict(tree["key_limits"])).update(row)
    else:
        limits = TenantLimits.model_fields
        tree["limits"].update({name: value for name, value in row.items() if name in limits})
        tree.update({name: value for name, value in row.items() if name not in limits})
    return tree
