"""Keys for tests: in a file for a server, in a dictionary for a gate alone."""

import json
from collections.abc import Iterable
from pathlib import Path

from serve_app.config import BrowserConfig, Config
from serve_app.config.auth import AuthConfig
from serve_app.identity.gate import Arrival, Authenticates, Gate, Revoked, known_origins
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import ALL, Principal, Scope
from serve_app.identity.routes import ANY_KEY
from serve_app.security.signing import SigningKeys


def key_of(tenant: str) -> str:
    return f"test-key-of-{tenant}-0123456789"


def bearer(tenant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key_of(tenant)}"}


async def admitted(keys: Authenticates, shown: str) -> Principal:
    """By the gate, for a request that needs any key. Raises `LoginRefused`."""
    known = known_origins(BrowserConfig(), requires_keys=True)
    gate = Gate(known, SigningKeys([bytes(32)]), keys)
    return await gate.admitted(ANY_KEY, Arrival({"Authorization": f"Bearer {shown}"}))


def keyed(folder: Path, *all_scopes: str, **scopes: Iterable[Scope]) -> AuthConfig:
    """Keys of these tenants, in a file that a running server reads again when it changes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "keys.yaml"
    file.touch(0o600)
    tenants = dict.fromkeys(all_scopes, ALL) | scopes
    entries = [
        {"key": key_of(tenant), "tenant": tenant, "scopes": sorted(allowed)}
        for tenant, allowed in tenants.items()
    ]
    file.write_text(json.dumps(entries))
    return AuthConfig(key_file=str(file))


def with_keys(config: Config, *all_scopes: str, **scopes: Iterable[Scope]) -> Config:
    auth = keyed(Path(config.storage.directory), *all_scopes, **scopes)
    return config.model_copy(update={"auth": auth})


class KnownKeys:
    """In the place of an `Authenticator`."""

    def __init__(self, **scopes: Iterable[Scope]) -> None:
        self.keys = {
            key_of(tenant): Principal(tenant, f"k-{tenant}", frozenset(allowed))
            for tenant, allowed in scopes.items()
        }
        self.refreshes = 0

    def authenticated(self, credential: str) -> Principal:
        if credential not in self.keys:
            raise LoginRefused(RefusalReason.UNKNOWN)
        return self.keys[credential]

    def still_valid(self, key: str) -> bool:
        return key in {caller.key for caller in self.keys.values()}

    def still_so(self, who: Principal) -> bool:
        return who in self.keys.values()

    def follow_revoked(self, follower: Revoked) -> None:
        raise NotImplementedError

    async def refreshed(self) -> None:
        self.refreshes += 1
