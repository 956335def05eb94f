"""The operator's secret keys, as they stand in an environment variable or a file. Pure."""

import base64
import binascii
import hashlib
import re

KEY_BYTES = 32
ID_BYTES = 8
SEPARATORS = re.compile(r"[\s,]+")


def key_id(key: bytes) -> str:
    """Identifies a key without revealing it."""
    return hashlib.sha256(b"voxray key id|" + key).hexdigest()[: 2 * ID_BYTES]


def parse_keys(text: str) -> list[bytes]:
    """Keys in base64, separated by commas or lines. Raises `ValueError`, also if there is none."""
    keys = [_key(word) for word in SEPARATORS.split(text) if word]
    if not keys:
        raise ValueError("no key is given")
    return keys


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a key is not valid base64") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {len(key)} bytes, not {KEY_BYTES}")
    return key
