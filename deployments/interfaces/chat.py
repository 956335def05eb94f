"""Replies: what a chat engine is asked and what it writes."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class ToolCall(NamedTuple):
    """A function the model wants called. While a reply is written `arguments` is the next piece
    of them, and `id` and `name` stand on the first piece."""

    number: int
    """Of the call in its reply."""
    id: str
    name: str
    arguments: str


class Message(NamedTuple):
    """One message of a conversation, as OpenAI's chat API has them."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    """The call that a `tool` message answers."""


class Tool(NamedTuple):
    name: str
    description: str
    parameters: str
    """A JSON schema, as text."""


class ChatOptions(NamedTuple):
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or a tool's name."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    json: bool = False
    """The reply must be a JSON object."""


class ChatRequest(NamedTuple):
    """Wants a reply to the last of the messages. Answered by `ChatDelta`."""

    session: int
    messages: tuple[Message, ...]
    options: ChatOptions = ChatOptions()


class ChatDelta(NamedTuple):
    """The next piece of a reply. The last one has `finish` or `failure`.

    `finish` is `stop`, `length`, `tool_calls` or `content_filter`; `tokens` are those of the prompt
    and those of the reply so far, `engine_ms` the time since the replica had the request.
    """

    session: int
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    failure: str | None = None
    tokens: tuple[int, int] = (0, 0)
    engine_ms: float = 0.0

    @property
    def ended(self) -> bool:
        return self.finish is not None or self.failure is not None


class ChatEngine(Protocol):
    """Writes replies. `reply` yields pieces; closing it stops the model. Raises `EngineFailed`."""

    name: str
    options: Options
    """Those from INSTRUCTIONS to JSON that it uses."""

    async def start(self) -> None: ...

    def reply(self, ask: ChatRequest) -> AsyncIterator[ChatDelta]: ...

    async def stop(self) -> None: ...

    def made(self) -> int:
        """Tokens written since the start, by which a test knows that cancelling stops it."""
