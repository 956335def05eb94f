"""The form of a key that we make, and what is stored of it. Pure.

    vx_ID_SECRETCHECK     12 lower-case letters and digits, 43 letters and digits, 6 of a CRC-32

The check makes a key in a leaked file certain to be one. What is stored is an HMAC of the key with
a pepper, which is not in the database: a stolen database lets nobody in, nor make keys.
"""

import hmac
import re
import string
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from serve_app.security.keys import key_id, parse_keys

PREFIX = "vx_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 12, 43, 6
ID_LETTERS = string.digits + string.ascii_lowercase
LETTERS = string.digits + string.ascii_letters

_FORM = re.compile(
    rf"{PREFIX}([0-9a-z]{{{ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})"
    rf"([0-9A-Za-z]{{{CHECK_CHARS}}})"
)


class ShownKey(NamedTuple):
    """A key as its owner has it."""

    id: str
    secret: str

    def __str__(self) -> str:
        body = f"{PREFIX}{self.id}_{self.secret}"
        return body + _check(body)


class Peppers:
    """At least one, the newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        self.newest = key_id(keys[0])

    @classmethod
    def parse(cls, text: str) -> "Peppers":
        """In base64, separated by commas or lines. Raises `ValueError`."""
        return cls(parse_keys(text))

    def __contains__(self, id_: str) -> bool:
        return id_ in self._keys

    def digest(self, pepper: str, key: ShownKey) -> bytes:
        """What is stored. It takes as long with the id of an unknown pepper, and is wrong."""
        known = self._keys.get(pepper, b"")
        return hmac.digest(known or bytes(32), f"voxray|{key.id}|{key.secret}".encode(), "sha256")


def parsed_key(text: str) -> ShownKey | None:
    """None for what we have not made."""
    if not (found := _FORM.fullmatch(text)):
        return None
    key = ShownKey(found[1], found[2])
    return key if found[3] == _check(f"{PREFIX}{key.id}_{key.secret}") else None


def _check(body: str) -> str:
    """CRC-32 in base 62."""
    rest, letters = zlib.crc32(body.encode()), ""
    for _ in range(CHECK_CHARS):
        rest, letter = divmod(rest, len(LETTERS))
        letters = LETTERS[letter] + letters
    return letters
