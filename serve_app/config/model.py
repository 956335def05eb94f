"""The base of every section of the configuration, and the ranges that most numbers share."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

DAY_S = 86_400
WEEK_S = 7 * DAY_S

Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
Milliseconds = Annotated[float, Field(ge=0, le=60_000)]
SpeechMs = Annotated[int, Field(ge=20, le=10_000)]
"""A length of speech or silence, in ms: at least one frame of the VAD."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 40)]


class ConfigModel(BaseModel):
    """A section: unknown keys, infinity and NaN are refused. Every number has an upper bound,
    because it may end in a timer, a queue or an allocation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, given: Any) -> Any:
        """Who sets one key of a section keeps this section's defaults of the others."""
        if not isinstance(given, Mapping):
            return given
        return {name: cls._completed(name, value) for name, value in given.items()}

    @classmethod
    def _completed(cls, name: Any, value: Any) -> Any:
        field = cls.model_fields.get(name)
        if field is None or not isinstance(field.default, ConfigModel):
            return value
        if not isinstance(value, Mapping):
            return value
        return {**field.default.model_dump(exclude_unset=True), **value}
