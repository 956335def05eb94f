"""The configuration of sessions that go on after their connection was lost."""

import os

from pydantic import Field

from serve_app.config.model import ConfigModel, Seconds


class ResumeConfig(ConfigModel):
    """Live sessions and conversations that can be resumed."""

    key_variable: str = Field(
        "VOXRAY_SIGNING_KEY",
        description="The environment variable with keys, 32 bytes in base64 each, separated by "
        "commas: the first one signs resume tokens and client secrets, all of them verify. Unset: "
        "a key is made once and kept by the Ray cluster until that ends.",
    )
    token_lifetime_s: Seconds = Field(
        300.0, description="Seconds in which a client may come back with a resume token."
    )

    history_s: float = Field(
        86_400.0,
        gt=0,
        le=3_153_600_000,
        description="Seconds after its last turn in which a conversation of `/ws` can be "
        "continued; then its history is deleted.",
    )
    history_items: int = Field(
        200, ge=1, le=100_000, description="Items of a conversation that are stored: the newest."
    )

    @property
    def keys(self) -> str:
        """The keys in the environment; "" if there are none."""
        return os.environ.get(self.key_variable, "")
