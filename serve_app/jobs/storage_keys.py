"""The operator's keys, from the environment or a file. Checking them loads no database."""

import os
from pathlib import Path

from serve_app.config import StorageConfig
from serve_app.jobs.keyring import Keyring
from serve_app.jobs.private import Private


def keys_of(config: StorageConfig) -> Keyring | None:
    """The keys that wrap jobs' keys; existing objects need them even when `encrypt` is off.

    Raises `ValueError` for an invalid key, and for a missing one if `encrypt` is on.
    """
    where = config.key_file or f"${config.key_variable}"
    from_file = Path(config.key_file).read_text() if config.key_file else None
    text = from_file if from_file is not None else os.environ.get(config.key_variable, "")
    if not text.strip() and not config.encrypt:
        return None
    try:
        return Keyring.parse(text)
    except ValueError as error:
        reason = f"storage.encrypt needs keys of 32 bytes in base64 in {where}: {error}"
        raise ValueError(reason) from error


def private_of(config: StorageConfig) -> Private:
    """What seals and opens the words in rows. Raises `ValueError` as `keys_of`."""
    return Private(keys_of(config), config.encrypt)
