"""The operator's keys, which wrap jobs' keys: the first one encrypts, all can decrypt. Pure, except
for random nonces.

    wrapped key = "VXK1" | key id (8) | nonce (12) | key, encrypted (48)     AAD key id | path
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence

from serve_app.jobs.encryption import KEY_BYTES, Damaged, unwrap, wrap

MAGIC = b"VXK1"
ID_BYTES = 8
HEADER_BYTES = len(MAGIC) + ID_BYTES
SEPARATORS = re.compile(r"[\s,]+")


class KeyMissing(Exception):
    """The data was encrypted with a key that is not configured."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"no configured key has the id {id_}")
        self.id = id_


def key_id(key: bytes) -> str:
    """Identifies a key without revealing it."""
    return hashlib.sha256(b"voxray key id|" + key).hexdigest()[: 2 * ID_BYTES]


class Keyring:
    """At least one key of 32 bytes, the newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._newest = keys[0]
        self._keys = {key_id(key): key for key in keys}

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Keys in base64, separated by commas or lines. Raises `ValueError`."""
        words = [word for word in SEPARATORS.split(text) if word]
        keys = [_key(word) for word in words]
        if not keys:
            raise ValueError("no key is given")
        return cls(keys)

    def seal(self, secret: bytes, path: str) -> bytes:
        """`secret` encrypted with the newest key, bound to `path`."""
        id_ = key_id(self._newest)
        return MAGIC + bytes.fromhex(id_) + wrap(self._newest, secret, f"{id_}|{path}")

    def open(self, sealed: bytes, path: str) -> bytes:
        """Raises `KeyMissing` and `Damaged`."""
        id_ = id_of(sealed)
        if id_ not in self._keys:
            raise KeyMissing(id_)
        return unwrap(self._keys[id_], sealed[HEADER_BYTES:], f"{id_}|{path}")


def id_of(sealed: bytes) -> str:
    """The id of the key that encrypted it. Raises `Damaged`."""
    if len(sealed) < HEADER_BYTES or not sealed.startswith(MAGIC):
        raise Damaged("this is not an encrypted key")
    return sealed[len(MAGIC) : HEADER_BYTES].hex()


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a key is not valid base64") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {len(key)} bytes, not {KEY_BYTES}")
    return key
