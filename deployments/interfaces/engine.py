"""What every engine declares, and how it fails."""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any, Protocol


class LaneLost(Exception):
    """Audio came of a session that did not begin in this lane."""


class Option(StrEnum):
    """What a client may ask for and not every engine can do. An engine declares its `options`; what
    it does not declare is never passed to it silently: the request is refused, or the answer says
    that the option was ignored. The values are the names of fields in `SpeechOptions`,
    `ChatOptions`, `SpeechRequest` and `SpeakerCount`, where there is such a field.
    """

    LANGUAGE = "language"
    """A transcriber recognises the language that it is told."""
    HOTWORDS = "hotwords"
    GRAMMAR = "grammar"
    """JSGF; nothing else is recognised."""
    PROMPT = "prompt"
    """A question about the audio is answered."""

    INSTRUCTIONS = "instructions"
    """A chat engine follows `system` messages."""
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    MAX_TOKENS = "max_tokens"
    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    STOP = "stop"
    SEED = "seed"
    JSON = "json"

    SPEED = "speed"
    BLEND = "blend"
    """Several voices at once, as in `af_heart(2)+af_bella(1)`."""

    SPEAKERS = "speakers"
    """The least and the most number of speakers in a recording."""


Options = frozenset[Option]


NO_OPTIONS: Options = frozenset()


def options_of(engine: object) -> Options:
    """What an engine, or its class, declares. Nothing optional unless it says so."""
    declared: Options = getattr(engine, "options", NO_OPTIONS)
    return declared


class EngineFailed(Exception):
    """An engine cannot do what it was asked for; the text goes to the client."""


class EngineDied(Exception):
    """An engine can do no more at all. Nobody is told: its replica ends, the lanes with it, and
    what had no answer yet is asked elsewhere."""


class Supervised(Protocol):
    """An engine with processes of its own, which can die or freeze."""

    async def died(self) -> str:
        """Returns when the engine can do no more, with the reason; its processes are gone then."""


class Requests(Protocol):
    """A model that is asked rather than fed: answers stream over `listen`."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Any]]: ...

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> None: ...
