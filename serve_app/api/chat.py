"""`POST /v1/chat/completions`: the chat engine for OpenAI's clients."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from deployments.interfaces import (
    ChatDelta,
    ChatOptions,
    ChatRequest,
    Message,
    Option,
    Options,
    Tool,
    ToolCall,
)
from serve_app.api.backend import Backend
from serve_app.api.hang_up import while_connected
from serve_app.api.streamed import DONE, EVENT_STREAM, Streamed, begun, event, with_errors
from serve_app.config import Limits
from serve_app.conversation.driver import Conversations
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal
from serve_app.live.options import (
    EngineInfo,
    check_tool_choice,
    listed,
    noted,
    unknown,
    unsupported,
)
from serve_app.observability.tracing import current, traceparent
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.json_bounds import LARGEST
from serve_app.usage.meter import Counted

MAX_TOKENS = 1 << 31
CHARS_A_TOKEN, SHORT_REPLY = 4, 64


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class FunctionCalled(_Shape):
    name: str
    arguments: str = ""


class CallShape(_Shape):
    id: str = ""
    function: FunctionCalled


class MessageShape(_Shape):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[CallShape] | None = None
    tool_call_id: str | None = None


class FunctionShape(_Shape):
    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolShape(_Shape):
    type: Literal["function"]
    function: FunctionShape


class StreamOptions(_Shape):
    include_usage: bool = False


class ResponseFormat(_Shape):
    type: Literal["text", "json_object", "json_schema"] = "text"


class ChatAsked(_Shape):
    """Other fields have no effect and are listed in `ignored` of the answer."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = ""
    messages: list[MessageShape] = Field(min_length=1, max_length=10_000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-LARGEST - 1, le=LARGEST)
    n: Literal[1] | None = None
    tools: list[ToolShape] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolShape | None = None
    response_format: ResponseFormat | None = None


def router(backend: Backend, conversations: Conversations, limit: ConcurrencyLimit) -> APIRouter:
    routes = APIRouter(prefix="/v1/chat", tags=["chat"])

    @routes.post("/completions")
    async def completions(caller: Caller, request: Request, asked: ChatAsked) -> Response:
        """A reply to a conversation, whole or as server-sent events."""
        engine = backend.engines.chat
        ask = _ask(asked, conversations.sessions.limits, engine)
        written = _written(conversations, ask, limit, caller)
        ignored = listed(_ignored(asked, engine))
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": engine.name,
        }
        if not asked.stream:
            return JSONResponse(
                await while_connected(request, _whole(written, head | noted(ignored)))
            )
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        chunks = with_errors(_chunks(written, head, usage, ignored), DONE)
        return Streamed(await while_connected(request, begun(chunks)), EVENT_STREAM)

    return routes


OPTIONS = {
    "tools": Option.TOOLS,
    "max_tokens": Option.MAX_TOKENS,
    "max_completion_tokens": Option.MAX_TOKENS,
    "temperature": Option.TEMPERATURE,
    "top_p": Option.TOP_P,
    "stop": Option.STOP,
    "seed": Option.SEED,
}
"""Fields that clients send by default, and the option that an engine needs for them."""


def _ignored(asked: ChatAsked, engine: EngineInfo) -> Iterator[str]:
    for name, option in OPTIONS.items():
        if getattr(asked, name) and option not in engine.options:
            yield name
    has_instructions = any(message.role in ("system", "developer") for message in asked.messages)
    if has_instructions and Option.INSTRUCTIONS not in engine.options:
        yield "messages.system"
    yield from unknown(asked.model_extra)


def _check_format(format_: ResponseFormat | None, engine: EngineInfo) -> None:
    if format_ is None or format_.type == "text":
        return
    if format_.type == "json_schema" or Option.JSON not in engine.options:
        refused = unsupported(f"response_format of type {format_.type}", engine)
        raise ClientError(refused.code, refused.message, param="response_format")


def _ask(asked: ChatAsked, limits: Limits, engine: EngineInfo) -> ChatRequest:
    _check_format(asked.response_format, engine)
    check_tool_choice(
        _choice(asked.tool_choice), [tool.function.name for tool in asked.tools or ()], engine
    )
    messages = tuple(_message(message) for message in asked.messages)
    chars = sum(len(message.content) for message in messages)
    if chars > limits.max_chat_chars:
        reason = f"messages have {chars} characters; at most {limits.max_chat_chars} are allowed"
        raise ClientError("text_too_long", reason, param="messages")
    if len(asked.tools or ()) > limits.max_tools:
        reason = f"at most {limits.max_tools} tools are allowed"
        raise ClientError("too_many_items", reason, param="tools")
    return ChatRequest(0, messages, _options(asked, engine.options))


def _options(asked: ChatAsked, used: Options) -> ChatOptions:
    """Without the options that the engine ignores."""
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    options = ChatOptions(
        tuple(_tool(tool.function) for tool in asked.tools or ()),
        _choice(asked.tool_choice),
        asked.max_completion_tokens or asked.max_tokens,
        asked.temperature,
        asked.top_p,
        stop,
        asked.seed,
        asked.response_format is not None and asked.response_format.type != "text",
    )
    unused = {name for name in ChatOptions._fields if Option(name) not in used}
    return options._replace(**{name: ChatOptions._field_defaults[name] for name in unused})


def _message(shape: MessageShape) -> Message:
    calls = tuple(
        ToolCall(index, call.id, call.function.name, call.function.arguments)
        for index, call in enumerate(shape.tool_calls or ())
    )
    role = "system" if shape.role == "developer" else shape.role
    return Message(role, _content(shape.content), calls, shape.tool_call_id)


def _content(content: str | list[dict[str, Any]] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ClientError(
                "unsupported_content",
                f"content of type {str(part.get('type'))[:40]!r}: only text is allowed",
                param="messages",
            )
    return "".join(part["text"] for part in content)


def _tool(function: FunctionShape) -> Tool:
    return Tool(function.name, function.description or "", json.dumps(function.parameters or {}))


def _choice(choice: str | ToolShape | None) -> str:
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.function.name


async def _written(
    conversations: Conversations, ask: ChatRequest, limit: ConcurrencyLimit, caller: Principal
) -> AsyncIterator[ChatDelta]:
    trace = traceparent(current())
    with (
        limit.slot(caller.tenant),
        conversations.limiter.quota(caller, Counted.TOKENS, _estimate(ask)),
    ):
        async with aclosing(
            conversations.chat.stream(ask.messages, ask.options, caller=caller, trace=trace)
        ) as pieces:  # type: ignore[type-var]
            async for written in pieces:
                yield written


def _estimate(ask: ChatRequest) -> int:
    """Tokens to reserve; what is used is counted."""
    read = sum(len(message.content) for message in ask.messages) // CHARS_A_TOKEN
    return read + (ask.options.max_tokens or SHORT_REPLY)


async def _whole(pieces: AsyncIterator[ChatDelta], head: dict[str, Any]) -> dict[str, Any]:
    text, calls, last = "", dict[int, ToolCall](), ChatDelta(0)
    async for last in pieces:
        text += last.text
        for call in last.calls:
            known = calls.get(call.number, call._replace(arguments=""))
            calls[call.number] = known._replace(arguments=known.arguments + call.arguments)
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if calls:
        message["tool_calls"] = [_call(call) for call in calls.values()]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish}
    usage = _usage(last.tokens)
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


async def _chunks(
    pieces: AsyncIterator[ChatDelta], head: dict[str, Any], include_usage: bool, ignored: list[str]
) -> AsyncGenerator[bytes, None]:
    """OpenAI's order: the role first, one finish, then the usage without choices."""
    first, tokens = True, (0, 0)
    async with aclosing(pieces) as written_:  # type: ignore[type-var]
        async for written in written_:
            tokens = max(tokens, written.tokens)
            if first:
                yield _chunk(head | noted(ignored), {"role": "assistant", "content": ""})
                first = False
            if written.text:
                yield _chunk(head, {"content": written.text})
            if written.calls:
                calls = [_call(call) | {"index": call.number} for call in written.calls]
                yield _chunk(head, {"tool_calls": calls})
            if written.finish:
                yield _chunk(head, {}, written.finish)
    if include_usage:
        chunk = {**head, "object": "chat.completion.chunk", "choices": []}
        yield event(chunk | {"usage": _usage(tokens)})


def _chunk(head: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**head, "object": "chat.completion.chunk", "choices": [choice]})


def _call(call: ToolCall) -> dict[str, Any]:
    """Only a call's first piece has its id and name."""
    function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
    named = {"id": call.id, "type": "function"} if call.id else {}
    return {**named, "function": function}


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    prompt, completion = tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
