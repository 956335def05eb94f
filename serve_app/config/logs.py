"""The configuration of logs."""

from typing import Literal

from pydantic import Field

from serve_app.config.model import ConfigModel


class LoggingConfig(ConfigModel):
    """What every replica logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least serious events that are logged."
    )
    format: Literal["json", "text"] = Field(
        "json", description="The form of a line; an event is a line."
    )
