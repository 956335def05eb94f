"""The simulated engine: the first token after a given time, and each further token after another.

For capacity planning and tests. Its first words say what it is.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

from deployments.interfaces import ChatDelta, ChatRequest, Option, ToolCall

WORDS = (
    "The sim answers, and this is all it ever says. It counts its words, one by one, "
    "so that a test can tell whether it has stopped. "
).split()


class SimChat:
    """`tokens` words a reply. Calls a tool, without arguments, when one is required or the last
    message contains its name; after a tool's output it replies with words again."""

    name = "sim"
    options = frozenset({Option.TOOLS, Option.TOOL_CHOICE, Option.MAX_TOKENS})

    def __init__(self, first_token_ms: float, token_ms: float, tokens: int) -> None:
        self._first_token_s = first_token_ms / 1000
        self._token_s = token_ms / 1000
        self._tokens = tokens
        self._generated = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def generated(self) -> int:
        return self._generated

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        prompt = sum(len(message.content.split()) for message in request.messages)
        await asyncio.sleep(self._first_token_s)
        if call := _call(request):
            self._generated += 1
            yield ChatDelta(request.session, calls=(call,), finish="tool_calls", tokens=(prompt, 1))
            return
        allowed = min(self._tokens, request.options.max_tokens or self._tokens)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for count, word in zip(range(1, allowed + 1), itertools.cycle(WORDS), strict=False):
            self._generated += 1
            yield ChatDelta(request.session, word + " ", tokens=(prompt, count))
            # by the clock: separate sleeps would add up to more than the given time
            await asyncio.sleep(began + count * self._token_s - loop.time())
        finish = "stop" if allowed == self._tokens else "length"
        yield ChatDelta(request.session, finish=finish, tokens=(prompt, allowed))


def _call(request: ChatRequest) -> ToolCall | None:
    options, last = request.options, request.messages[-1]
    if not options.tools or options.tool_choice == "none" or last.role == "tool":
        return None
    named = [tool.name for tool in options.tools if tool.name in last.content]
    if options.tool_choice not in ("auto", "required"):
        named = [options.tool_choice]
    if options.tool_choice == "required":
        named = named or [options.tools[0].name]
    return ToolCall(0, f"call_{len(request.messages)}", named[0], "{}") if named else None
