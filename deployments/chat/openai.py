"""Any OpenAI-compatible server as the engine: streamed, with timeouts, retries and a breaker.

The client library retries what may pass (connection errors, 408, 409, 429, 5xx) with backoff,
before the first token only. After several failures in a row the breaker opens: for a while
requests fail at once, so that a server that is down does not make every turn wait for it.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from deployments.interfaces import (
    ChatDelta,
    ChatOptions,
    ChatRequest,
    EngineFailed,
    Message,
    Option,
    Tool,
    ToolCall,
)


class Breaker:
    """Closed until `failures` in a row; then open for `rest_s`, after which one may try."""

    def __init__(self, failures: int, rest_s: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def check(self) -> None:
        """Raises `EngineFailed` while open; the one that may try keeps it open for others."""
        now = self._clock()
        if self._failures < self._limit:
            return
        if now < self._open_until:
            wait_s = self._open_until - now
            raise EngineFailed(f"the chat server keeps failing; tried again in {wait_s:.0f} s")
        self._open_until = now + self._rest_s

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._open_until = self._clock() + self._rest_s


OPTIONS = frozenset(
    {
        Option.INSTRUCTIONS,
        Option.TOOLS,
        Option.TOOL_CHOICE,
        Option.MAX_TOKENS,
        Option.TEMPERATURE,
        Option.TOP_P,
        Option.STOP,
        Option.SEED,
        Option.JSON,
    }
)
"""What a chat completion of OpenAI's API can be asked for."""


class OpenAI:
    """Implements `ChatEngine` with `POST {base_url}/chat/completions`."""

    name = "openai"
    options = OPTIONS

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str,
        timeout_s: float,
        connect_timeout_s: float,
        retries: int,
        breaker_failures: int,
        breaker_open_s: float,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._api_key_variable = api_key_variable
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._retries = retries
        self._breaker = Breaker(breaker_failures, breaker_open_s, time.monotonic)
        self._client: Any = None
        self._made = 0

    async def start(self) -> None:
        """Raises `EngineFailed` without a model's name: there is no default to guess."""
        from openai import AsyncOpenAI, Timeout

        if not self._model:
            raise EngineFailed("chat.openai.model is not set")
        self._client = AsyncOpenAI(
            base_url=self._base_url,
            api_key=os.environ.get(self._api_key_variable) or "none",
            max_retries=self._retries,
            timeout=Timeout(self._timeout_s, connect=self._connect_timeout_s),
        )

    async def stop(self) -> None:
        if self._client:
            await self._client.close()

    def made(self) -> int:
        return self._made

    async def reply(self, ask: ChatRequest) -> AsyncIterator[ChatDelta]:
        from openai import OpenAIError

        self._breaker.check()
        try:
            async with await self._create(ask) as stream:
                self._breaker.succeeded()
                async for piece in written(ask.session, stream):
                    self._made += bool(piece.text or piece.calls)
                    yield piece
        except OpenAIError as error:
            if getattr(error, "status_code", 500) >= 500:
                self._breaker.failed()
            raise EngineFailed(_reason(error)) from error

    async def _create(self, ask: ChatRequest) -> Any:
        return await self._client.chat.completions.create(model=self._model, **asked_for(ask))


async def written(session: int, chunks: AsyncIterator[Any]) -> AsyncIterator[ChatDelta]:
    """Pieces out of OpenAI's chunks; the last waits for the usage, which comes after the finish.

    Raises `EngineFailed` when the chunks end without a finish.
    """
    finish, tokens, count = None, (0, 0), 0
    async for chunk in chunks:
        if chunk.usage:
            tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        for choice in chunk.choices[:1]:
            finish = choice.finish_reason or finish
            calls = _calls(choice.delta.tool_calls or ())
            if choice.delta.content or calls:
                count += 1
                yield ChatDelta(session, choice.delta.content or "", calls)
    if finish is None:
        raise EngineFailed("the chat server broke off in the middle of a reply")
    yield ChatDelta(session, finish=finish, tokens=tokens if tokens[1] else (0, count))


def asked_for(ask: ChatRequest) -> dict[str, Any]:
    """A streamed chat completion, as OpenAI's API is asked for one."""
    return {
        "messages": [_message(message) for message in ask.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_options(ask.options),
    }


def _reason(error: Exception) -> str:
    """What went wrong, without what the server said: that may hold anything."""
    status = getattr(error, "status_code", None)
    return f"the chat server answered {status}" if status else "the chat server does not answer"


def _message(message: Message) -> dict[str, Any]:
    shaped: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        shaped["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.call_id is not None:
        shaped["tool_call_id"] = message.call_id
    return shaped


def _options(options: ChatOptions) -> dict[str, Any]:
    shaped: dict[str, Any] = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "stop": list(options.stop) or None,
        "seed": options.seed,
    }
    if options.json:
        shaped["response_format"] = {"type": "json_object"}
    if options.tools:
        shaped["tools"] = [_tool(tool) for tool in options.tools]
        shaped["tool_choice"] = _choice(options.tool_choice)
    return {name: value for name, value in shaped.items() if value is not None}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": json.loads(tool.parameters),
    }
    return {"type": "function", "function": function}


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _calls(deltas: Sequence[Any]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            delta.index,
            delta.id or "",
            (delta.function and delta.function.name) or "",
            (delta.function and delta.function.arguments) or "",
        )
        for delta in deltas
    )
