"""Any OpenAI-compatible server as the engine: streamed, with timeouts, retries, a circuit breaker.

The client library retries temporary failures (connection errors, 408, 409, 429, 5xx) with backoff,
until the first token. After several failures in a row the breaker opens: for a while requests fail
at once, so that turns do not wait for a server that is down.
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


class CircuitBreaker:
    """Closed until `failures` in a row, then open for `open_s`; after that one request may try."""

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def check(self) -> None:
        """Raises `EngineFailed` while open. A request that may try keeps it open for all others."""
        now = self._clock()
        if self._failures < self._limit:
            return
        if now < self._open_until:
            wait_s = self._open_until - now
            raise EngineFailed(f"the chat server keeps failing; retry in {wait_s:.0f} s")
        self._open_until = now + self._open_s

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._open_until = self._clock() + self._open_s


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
"""The options of a chat completion in OpenAI's API."""


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
        self._breaker = CircuitBreaker(breaker_failures, breaker_open_s, time.monotonic)
        self._client: Any = None
        self._generated = 0

    async def start(self) -> None:
        """Raises `EngineFailed` without a model's name, because there is no sensible default."""
        from openai import AsyncOpenAI, Timeout

        if not self._model:
            raise EngineFailed("chat.openai.model is not set: name a model of the server")
        self._client = AsyncOpenAI(
            base_url=self._base_url,
            api_key=os.environ.get(self._api_key_variable) or "none",
            max_retries=self._retries,
            timeout=Timeout(self._timeout_s, connect=self._connect_timeout_s),
        )

    async def stop(self) -> None:
        if self._client:
            await self._client.close()

    def generated(self) -> int:
        return self._generated

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        from openai import OpenAIError

        self._breaker.check()
        try:
            async with await self._create(request) as stream:
                self._breaker.succeeded()
                async for piece in deltas(request.session, stream):
                    self._generated += bool(piece.text or piece.calls)
                    yield piece
        except OpenAIError as error:
            if getattr(error, "status_code", 500) >= 500:
                self._breaker.failed()
            raise EngineFailed(_reason(error)) from error

    async def _create(self, request: ChatRequest) -> Any:
        headers = {"traceparent": request.trace} if request.trace else None
        return await self._client.chat.completions.create(
            model=self._model, extra_headers=headers, **completion(request)
        )


async def deltas(session: int, chunks: AsyncIterator[Any]) -> AsyncIterator[ChatDelta]:
    """Deltas from OpenAI's chunks. The last one waits for the usage, which comes after the finish.
    Until a server tells it, a chunk counts as one token.

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
                so_far = tokens if tokens[1] else (tokens[0], count)
                yield ChatDelta(session, choice.delta.content or "", calls, tokens=so_far)
    if finish is None:
        raise EngineFailed("the chat server ended the stream in the middle of a reply")
    yield ChatDelta(session, finish=finish, tokens=tokens if tokens[1] else (0, count))


def completion(request: ChatRequest) -> dict[str, Any]:
    """The request for a streamed chat completion in OpenAI's API."""
    return {
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_options(request.options),
    }


def _reason(error: Exception) -> str:
    """What went wrong, without the server's own text, which could contain anything."""
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
