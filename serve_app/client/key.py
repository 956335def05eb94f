"""The key that a client shows, if it has one."""

import os

VARIABLE = "VOXRAY_API_KEY"
"""On a server's own machine it may hold several, separated by commas; a client shows the first."""


def key_headers(key: str | None = None) -> dict[str, str]:
    """`key`: None is the one of the environment, "" is none."""
    shown = os.environ.get(VARIABLE, "").split(",")[0].strip() if key is None else key
    return {"Authorization": f"Bearer {shown}"} if shown else {}
