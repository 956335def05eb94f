"""Who shows this key or token. Everything that is needed to say so is in memory.

Live speech depends on no database: what was known last stays known while it is away.
"""

from collections.abc import Collection
from pathlib import Path

import anyio

from serve_app.config.auth import AuthConfig
from serve_app.identity import subject
from serve_app.identity.api_key import PREFIX
from serve_app.identity.key_file import KeyFile
from serve_app.identity.known_keys import KnownKeys
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.peppers import peppers_of
from serve_app.identity.principal import Ended, Principal
from serve_app.identity.static_keys import StaticKeys, digest, from_environment, from_file
from serve_app.identity.tokens import Tokens
from serve_app.jobs.database import Database

MAX_CHARS = 8_192
"""Of a key or token; a longer one is not looked at."""


def check_keys(auth: AuthConfig) -> None:
    """Raises `ValueError` for a configuration that lets nobody in, or a weak key."""
    if auth.mode == "keys":
        peppers_of(auth)
    in_file = from_file(Path(auth.key_file).expanduser()) if auth.key_file else {}
    tokens = Tokens(auth.jwt) if auth.jwt.configured else None
    if auth.required and not (from_environment(auth) or in_file or tokens or auth.mode == "keys"):
        raise ValueError(
            "keys are needed, but there are none: set the variable "
            f"{auth.key_variable}, auth.key_file, auth.jwt, or auth: keys"
        )


class Authenticator:
    """Up to date while `run` runs."""

    def __init__(self, auth: AuthConfig, database: Database) -> None:
        """Raises `ValueError` for a configuration that lets nobody in, or a weak key."""
        check_keys(auth)
        self._own = from_environment(auth)
        self._file = KeyFile(auth.key_file) if auth.key_file else None
        self._keys = KnownKeys(database, peppers_of(auth)) if auth.mode == "keys" else None
        self._tokens = Tokens(auth.jwt) if auth.jwt.configured else None
        self._followers: list[Ended] = []

    def authenticated(self, credential: str) -> Principal:
        """The caller with this key or token. Never waits. Raises `LoginRefused`, and `ClientError`
        `storage_unavailable` or `auth_unavailable` while nobody knows which keys there are."""
        if not credential:
            raise LoginRefused(RefusalReason.MISSING)
        if len(credential) > MAX_CHARS or not credential.isascii():
            raise LoginRefused(RefusalReason.MALFORMED)
        sha256 = digest(credential)
        if known := self._static(sha256):
            return known
        if self._keys and credential.startswith(PREFIX):
            return self._keys.caller(credential)
        if self._tokens and credential.count(".") == 2:
            return self._tokens.caller(credential, sha256)
        raise LoginRefused(RefusalReason.UNKNOWN)

    def still_valid(self, key: str) -> bool:
        """Whether a caller whose `Principal.key` this is may go on. Raises `ClientError`."""
        if self._static_named(key):
            return True
        if key.startswith(subject.PREFIX):  # what a token has made expires with it
            return self._tokens is not None
        return bool(self._keys and self._keys.still_valid(key))

    def still_so(self, who: Principal) -> bool:
        """Whether that key is still of this tenant, and may do all of this: a key in the file may
        have lost a scope. Raises `ClientError`."""
        if now := self._static_named(who.key):
            return now.tenant == who.tenant and who.scopes <= now.scopes
        return self.still_valid(who.key)

    def follow_revoked(self, follower: Ended) -> None:
        """It gets the ids of keys that were revoked, have expired or have changed, soon after."""
        self._followers.append(follower)

    async def refreshed(self) -> None:
        """Returns when the keys have been read anew, or soon after it did not work."""
        async with anyio.create_task_group() as tasks:
            if self._keys:
                tasks.start_soon(self._keys.refreshed)
            if self._tokens:
                tasks.start_soon(self._tokens.provider.refreshed)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self._file:
                tasks.start_soon(self._file.run, self._tell)
            if self._keys:
                tasks.start_soon(self._keys.run, self._tell)
            if self._tokens:
                tasks.start_soon(self._tokens.provider.run)

    def _static(self, key: bytes) -> Principal | None:
        found = [keys[key] for keys in self._all_static() if key in keys]
        return found[0] if found else None

    def _static_named(self, id_: str) -> Principal | None:
        named = (it for keys in self._all_static() for it in keys.values() if it.key == id_)
        return next(named, None)

    def _all_static(self) -> list[StaticKeys]:
        return [self._own, *([self._file.keys] if self._file else [])]

    def _tell(self, ended: Collection[str]) -> None:
        for follower in self._followers:
            follower(ended)
