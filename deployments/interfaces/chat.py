"""Chat: requests for replies, and the pieces of a reply."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class ToolCall(NamedTuple):
    """A function that the model asks to call. While a reply is written, `arguments` is their next
    piece, and `id` and `name` are set on the first piece only."""

    number: int
    """The index of the call in its reply."""
    id: str
    name: str
    arguments: str


class Message(NamedTuple):
    """One message of a conversation, as in OpenAI's chat API."""

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
    """Asks for a reply to the last message. Answered by `ChatDelta`s."""

    session: int
    messages: tuple[Message, ...]
    options: ChatOptions = ChatOptions()
    trace: str = ""
    """W3C's `traceparent` of the request, for whom it is passed on to."""


class ChatDelta(NamedTuple):
    """The next piece of a reply. The last one has `finish` or `failure`.

    `finish` is `stop`, `length`, `tool_calls` or `content_filter`; `tokens` counts
    those of the prompt and of the reply so far; `engine_ms` is the time since the replica got the
    request.
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
    """Writes replies. `reply` yields deltas; closing it stops the model. Raises `EngineFailed`."""

    name: str
    options: Options
    """Which of INSTRUCTIONS to JSON it supports."""

    async def start(self) -> None: ...

    def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]: ...

    async def stop(self) -> None: ...

    def generated(self) -> int:
        """Tokens written since the start; tests check with it that cancelling stops the model."""
