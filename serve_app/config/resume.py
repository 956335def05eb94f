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

    @property
    def keys(self) -> str:
        """The keys in the environment; "" if there are none."""
        return os.environ.get(self.key_variable, "")
