"""Keys of a small installation: from the environment, or from a file that may change.

They are kept as SHA-256, which is enough: their owner has made them long and random. A comparison
looks for the SHA-256 of what was sent, so its time says nothing about a key.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from serve_app.config.auth import AuthConfig
from serve_app.identity.principal import ALL, EVERYBODY, USER, Principal, Scope
from serve_app.identity.tenant import tenant_name

MIN_CHARS, MAX_CHARS = 16, 512
MIN_DIFFERENT = 8
MAX_FILE_BYTES = 1 << 20
ALLOWED = f"{MIN_CHARS} to {MAX_CHARS} random letters, digits and -._~+/="
MAKE = "make one with: openssl rand -hex 32"
RESERVED = ("ek_", "vx_")

StaticKeys = Mapping[bytes, Principal]
"""By the SHA-256 of the key."""

_KEY = re.compile(r"[A-Za-z0-9._~+/=-]+")


class StaticKey(BaseModel):
    """An entry of the file."""

    model_config = ConfigDict(extra="forbid")

    key: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{64})?$")] = ""
    tenant: str = EVERYBODY.tenant
    scopes: frozenset[Scope] = USER
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,40}$")] = ""

    @model_validator(mode="after")
    def _check(self) -> "StaticKey":
        tenant_name(self.tenant)
        if bool(self.key) == bool(self.sha256):
            raise ValueError("give `key` or `sha256`")
        if self.key:
            check_strength(self.key)
        return self

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256) if self.sha256 else digest(self.key)


class FileState(NamedTuple):
    """When it differs, the file has changed."""

    modified_ns: int
    size: int
    inode: int


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def check_strength(key: str) -> None:
    """Raises `ValueError` that does not quote the key."""
    if not MIN_CHARS <= len(key) <= MAX_CHARS or not _KEY.fullmatch(key):
        raise ValueError(f"a key has {ALLOWED}; {MAKE}")
    if len(set(key)) < MIN_DIFFERENT:
        raise ValueError(f"a key has {MIN_DIFFERENT} different characters or more; {MAKE}")
    if key.startswith(RESERVED):
        raise ValueError(f"a key of your own does not begin with {' or '.join(RESERVED)}; {MAKE}")


def from_environment(auth: AuthConfig) -> StaticKeys:
    """Raises `ValueError`."""
    try:
        return _by_digest(StaticKey(key=key, scopes=ALL) for key in auth.keys.split(",") if key)
    except ValueError as error:
        raise ValueError(f"${auth.key_variable}: {_said(error)}") from None


def from_file(path: Path) -> StaticKeys:
    """Raises `ValueError`, also if others may read the file."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
        if mode & 0o077:
            raise ValueError(f"others may read it; run: chmod 600 {path}")
        if len(text) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        return _by_digest(_ENTRIES.validate_python(yaml.safe_load(text) or []))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {_said(error)}") from None


def state_of(path: Path) -> FileState | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return FileState(found.st_mtime_ns, found.st_size, found.st_ino)


_ENTRIES: TypeAdapter[list[StaticKey]] = TypeAdapter(list[StaticKey])


def _by_digest(entries: Iterable[StaticKey]) -> StaticKeys:
    found: dict[bytes, Principal] = {}
    for entry in entries:
        principal = Principal(entry.tenant, _id(entry), entry.scopes)
        if entry.digest in found or principal.key in {it.key for it in found.values()}:
            raise ValueError("a key or a name is there twice")
        found[entry.digest] = principal
    return found


def _id(entry: StaticKey) -> str:
    """Says which key it was without saying the key."""
    return f"static:{entry.name or hashlib.sha256(b'voxray key|' + entry.digest).hexdigest()[:12]}"


def _said(error: ValueError) -> str:
    """Without the values, which are secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(_mistakes(error.errors(include_url=False, include_input=False)))


def _mistakes(errors: Iterable[Any]) -> Iterator[str]:
    for error in errors:
        where = ".".join(map(str, error["loc"]))
        message = error["msg"].removeprefix("Value error, ")
        yield f"{where}: {message}" if where else message
