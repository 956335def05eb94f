"""The operator's keys, which wrap jobs' keys: the first one encrypts, all can decrypt. Pure, except
for random nonces.

    wrapped key = "VXK1" | key id (8) | nonce (12) | key, encrypted (48)     AAD key id | path
"""

import hashlib
import hmac
from collections.abc import Sequence

from serve_app.jobs.encryption import Damaged, unwrap, wrap
from serve_app.security.keys import ID_BYTES, key_id, parse_keys

MAGIC = b"VXK1"
HEADER_BYTES = len(MAGIC) + ID_BYTES


class KeyMissing(Exception):
    """The data was encrypted with a key that is not configured."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"no configured key has the id {id_}")
        self.id = id_


class Keyring:
    """At least one key of 32 bytes, the newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._newest = keys[0]
        self._keys = {key_id(key): key for key in keys}

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Keys in base64, separated by commas or lines. Raises `ValueError`."""
        return cls(parse_keys(text))

    def seal(self, secret: bytes, path: str) -> bytes:
        """`secret` encrypted with the newest key, bound to `path`."""
        id_ = key_id(self._newest)
        return self.prefix + wrap(self._newest, secret, f"{id_}|{path}")

    def open(self, sealed: bytes, path: str) -> bytes:
        """Raises `KeyMissing` and `Damaged`."""
        id_ = id_of(sealed)
        if id_ not in self._keys:
            raise KeyMissing(id_)
        return unwrap(self._keys[id_], sealed[HEADER_BYTES:], f"{id_}|{path}")

    @property
    def prefix(self) -> bytes:
        """How everything begins that the newest key encrypted."""
        return MAGIC + bytes.fromhex(key_id(self._newest))

    @property
    def ids(self) -> list[str]:
        """Of all keys, the newest first."""
        return list(self._keys)

    def rewrap(self, sealed: bytes, path: str) -> bytes:
        """The same, encrypted with the newest key. Raises `KeyMissing` and `Damaged`."""
        return self.seal(self.open(sealed, path), path)

    def digests(self, text: str) -> list[str]:
        """What finds `text` in the database without showing it: one for each key, the newest
        first."""
        return [_digest(key, text) for key in self._keys.values()]


def _digest(key: bytes, text: str) -> str:
    apart = hmac.digest(key, b"voxray digest", hashlib.sha256)  # the key itself only encrypts
    return hmac.digest(apart, text.encode(), hashlib.sha256).hex()


def id_of(sealed: bytes) -> str:
    """The id of the key that encrypted it. Raises `Damaged`."""
    if len(sealed) < HEADER_BYTES or not sealed.startswith(MAGIC):
        raise Damaged("this is not an encrypted key")
    return sealed[len(MAGIC) : HEADER_BYTES].hex()
