"""How a server stops."""

from pydantic import Field

from serve_app.config.model import ConfigModel, Seconds

CLOSE_TIMEOUT_S = 10.0
"""For clients to answer close frames, and for live recordings to be stored."""


class DrainConfig(ConfigModel):
    """A server that stops takes no new work; what is open may go on for a while."""

    timeout_s: Seconds = Field(
        3600.0,
        description="Seconds that open sessions may go on when their replica stops; then they get "
        "the words of all their audio and are closed. `voxray run` uses 30 unless it is set.",
    )
