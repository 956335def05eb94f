"""Writes the server's events of the OpenAI Realtime dialect. Pure."""

from typing import Any

import orjson


class EventWriter:
    """Gives each event of one connection its `event_id`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0

    def __call__(self, type_: str, **fields: Any) -> bytes:
        self._count += 1
        event_id = f"event_{self._prefix}{self._count:06d}"
        return orjson.dumps({"type": type_, "event_id": event_id, **fields})
