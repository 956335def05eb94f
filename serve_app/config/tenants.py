"""What tenants and their keys may use, how much they get when all want more, and how long their
recordings are kept."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from serve_app.config.model import WEEK_S, ConfigModel

DEFAULT = "default"
"""Applies to tenants that are not named. It is also the tenant of everybody where no key is
needed."""

Most = Annotated[int, Field(ge=0, le=10**15)]
"""0: no limit."""

TenantName = Annotated[str, Field(min_length=1, max_length=80)]


class TenantLimits(ConfigModel):
    """What may be used; 0 is no limit. A day is one of UTC."""

    requests_per_minute: Most = Field(
        0, description="Requests and handshakes a minute; they may come at once."
    )
    sessions: Most = Field(0, description="Live sessions open, conversations included.")
    conversations: Most = Field(0, description="Conversations open.")
    audio_seconds_per_day: Most = Field(0, description="Seconds of audio to recognise a day.")
    characters_per_day: Most = Field(0, description="Characters to speak a day.")
    tokens_per_day: Most = Field(0, description="Tokens that the chat engine reads and writes.")
    waiting_jobs: Most = Field(0, description="Jobs that wait; 0: `jobs.max_waiting`.")
    stored_bytes: Most = Field(0, description="Bytes of recordings that are kept.")


class TenantConfig(ConfigModel):
    """One tenant. What is not set has no limit, also where `default` has one."""

    weight: float = Field(
        1.0, ge=0.01, le=1000, description="Share of the capacity when tenants want more than all."
    )
    retention_s: float = Field(
        0.0,
        ge=0,
        le=520 * WEEK_S,
        description="Seconds after its end when a job and its files are deleted; 0: "
        "`jobs.retention_s`.",
    )
    limits: TenantLimits = TenantLimits()
    key_limits: TenantLimits = Field(
        TenantLimits(), description="As `limits`, for each of its keys that is not in `keys`."
    )
    keys: dict[str, TenantLimits] = Field(
        {}, description="As `limits`, for single keys, by their ids."
    )

    def of_key(self, key: str) -> TenantLimits:
        """The limits of one key. Where no key is needed, there is none to limit."""
        return self.keys.get(key, self.key_limits) if key else NO_LIMITS


NO_LIMITS = TenantLimits()
UNNAMED = TenantConfig()


def tenant_config(tenants: Mapping[str, TenantConfig], name: str) -> TenantConfig:
    """Of the tenant, or else `default`."""
    return tenants.get(name) or tenants.get(DEFAULT) or UNNAMED
