"""Names of tenants. Pure.

They become parts of objects' paths, metrics and log lines, so they have few characters.
"""

import re

ALLOWED = "1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def tenant_name(name: str) -> str:
    """The name, if it is one. Raises `ValueError`."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name[:80]!r} is no name for a tenant: {ALLOWED}")
    return name
