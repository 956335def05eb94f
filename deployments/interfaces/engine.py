"""What all engines have in common: options and failures."""

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from deployments.fairness import Payer


class LaneLost(Exception):
    """Audio came for a session that did not begin in this lane."""


class Option(StrEnum):
    """An option of clients that only some engines support. An engine declares its `options`; a
    request for any other is refused, or the answer says that it was ignored. The values are names
    of fields in `SpeechOptions`, `ChatOptions`, `SpeechRequest` and `SpeakerCount`, where there is
    such a field.
    """

    LANGUAGE = "language"
    """A transcriber recognises the language that the client names."""
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
    """A mix of voices, such as `af_heart(2)+af_bella(1)`."""

    SPEAKERS = "speakers"
    """The minimum and maximum number of speakers in a recording."""


Options = frozenset[Option]


NO_OPTIONS: Options = frozenset()


def options_of(engine: object) -> Options:
    """The options that an engine, or its class, declares; none by default."""
    declared: Options = getattr(engine, "options", NO_OPTIONS)
    return declared


ENGINE_FAILED = "the engine failed; see the server log"
"""The failure that clients see for an unexpected exception."""


class EngineFailed(Exception):
    """An engine cannot serve a request; the text goes to the client."""


class EngineDied(Exception):
    """An engine has stopped for good. Clients see no error: its replica and lanes end, and
    unanswered requests go to another replica."""


@runtime_checkable
class Supervised(Protocol):
    """An engine that runs in separate processes, which can die or freeze."""

    async def wait_dead(self) -> str:
        """Returns the reason once the engine has stopped for good and its processes are gone."""


@runtime_checkable
class Queued(Protocol):
    """An engine in which work can wait, and which says how much: full engines refuse sessions."""

    def waiting(self) -> int:
        """Utterances or requests that it has not begun."""


@runtime_checkable
class Prompt(Protocol):
    """A transcriber that says how long it may be silent while it owes a final; after that its
    replica is replaced. Not for an engine that is `Supervised`, or one that may be slow: silence
    counts, however busy the machine is."""

    stall_s: float


class Lanes(Protocol):
    """A model that serves many sessions at once. A lane is open while it is listened to."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Any]]: ...

    async def exchange(self, lane: str, batch: Sequence[Any], left: Sequence[int]) -> Sequence[Any]:
        """Returns the answers that are available at once; `listen` streams later ones."""

    def pay(self, lane: str, payers: Mapping[int, Payer]) -> None:
        """Whose the work of these sessions is, before the first of it comes."""

    def waiting(self) -> int:
        """Utterances or requests that the engine has not begun."""

    def stalled(self) -> bool:
        """The engine owes answers and has sent none for longer than it ever should."""
