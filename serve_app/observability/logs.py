"""Log lines: one event a line, as JSON or as text, with ids and without anything secret.

Only what the table of events allows is written. Of an exception that is its class and where it was
raised; its text may hold what a client said. Of other libraries' messages, their logger and level.
"""

import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from serve_app.observability.ids import ids
from serve_app.observability.log_events import IDS, LOG_EVENTS

LOGGERS = ("voxray", "asyncio", "uvicorn.error")
"""asyncio's and uvicorn's messages quote exceptions, so they are written by our rules, too."""

FOREIGN = "library_message"
MOST_CHARS = 200
PLAIN = re.compile(r"[^\s=\"]+")
MOST_FRAMES = 8


def entry(record: logging.LogRecord, fixed: Mapping[str, str]) -> dict[str, Any]:
    """A record as the fields of its line."""
    event = LOG_EVENTS.get(str(record.msg))
    shown: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": event.name if event else FOREIGN,
        **fixed,
        **{name: value for name, value in ids().items() if value},
    }
    if event is None:
        shown["logger"] = record.name
    for name in (*IDS, *(event.fields if event else ())):
        value = record.__dict__.get(name)
        if value not in (None, ""):
            shown[name] = value[:MOST_CHARS] if isinstance(value, str) else value
    if record.exc_info and record.exc_info[1]:
        shown |= _error(record.exc_info[1])
    return shown


def _error(error: BaseException) -> dict[str, Any]:
    """Its class and those of its causes, and where it was raised."""
    classes: list[str] = []
    cause: BaseException | None = error
    while cause and len(classes) < MOST_FRAMES:
        classes.append(type(cause).__name__)
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    at = [f"{'/'.join(it.filename.split('/')[-3:])}:{it.lineno} {it.name}"[:100] for it in frames]
    return {"error": " < ".join(classes), "raised_at": at}


class Lines(logging.Formatter):
    """`fixed`: fields of every line, such as the replica."""

    def __init__(self, form: Literal["json", "text"], fixed: Mapping[str, str]) -> None:
        super().__init__()
        self._form = form
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        shown = entry(record, self._fixed)
        return _text(shown) if self._form == "text" else orjson.dumps(shown, default=str).decode()


def _text(shown: dict[str, Any]) -> str:
    at, level, event = shown.pop("at"), shown.pop("level"), shown.pop("event")
    values = [f"{name}={_plain(str(value))}" for name, value in shown.items()]
    return " ".join((at, level.upper(), event, *values))


def _plain(text: str) -> str:
    """Quoted where it could look like another field."""
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def start_logging(
    level: str,
    form: Literal["json", "text"],
    fixed: Mapping[str, str],
    to: Iterable[logging.Handler],
) -> None:
    """All loggers that this process has log to these handlers, and nowhere else."""
    lines = Lines(form, fixed)
    handlers = list(to)
    for handler in handlers:
        handler.setFormatter(lines)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(level.upper() if name == "voxray" else logging.WARNING)
