"""How whom a token names is called, where a key has its id: in usage, limits and logs. Pure."""

import hashlib
import re

PREFIX = "jwt:"
MAX_CHARS = 80
"""As the database has room for."""

_PLAIN = re.compile(r"[\x21-\x7e]+")


def subject_key(subject: str) -> str:
    """`jwt:` and the claim `sub`, or a digest of one that is long or has other characters. Raises
    `ValueError` for an empty one."""
    if not subject:
        raise ValueError("the token names nobody")
    key = f"{PREFIX}{subject}"
    if len(key) <= MAX_CHARS and _PLAIN.fullmatch(subject):
        return key
    return f"{PREFIX}sha256:{hashlib.sha256(subject.encode()).hexdigest()}"
