"""What a server says was used, and a configuration with its own database."""

from pathlib import Path
from typing import Any

import httpx2 as httpx

from serve_app.config import Config


def configured(folder: Path, **more: Any) -> Config:
    storage = {"directory": str(folder)}
    return Config.model_validate({"profile": "sim", "storage": storage, **more})


def used(address: str, **asked: Any) -> dict[str, Any]:
    """All sums together."""
    params = {"group_by": "", **asked}
    answer = httpx.get(f"http://{address}/v1/usage", params=params, timeout=30)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["data"]
    return dict(row)
