"""The stand-in engine: a reply after a stated time, a token after each stated time.

For capacity work and tests. It never pretends: its first words say what it is.
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
    """`tokens` words a reply. Calls the first tool, without arguments, when one is required or
    the last message has its name in it; after a tool's output it replies with words again."""

    name = "sim"
    options = frozenset({Option.TOOLS, Option.TOOL_CHOICE, Option.MAX_TOKENS})

    def __init__(self, first_token_ms: float, token_ms: float, tokens: int) -> None:
        self._first_token_s = first_token_ms / 1000
        self._token_s = token_ms / 1000
        self._tokens = tokens
        self._made = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def made(self) -> int:
        return self._made

    async def reply(self, ask: ChatRequest) -> AsyncIterator[ChatDelta]:
        asked = sum(len(message.content.split()) for message in ask.messages)
        await asyncio.sleep(self._first_token_s)
        if call := _call(ask):
            self._made += 1
            yield ChatDelta(ask.session, calls=(call,), finish="tool_calls", tokens=(asked, 1))
            return
        allowed = min(self._tokens, ask.options.max_tokens or self._tokens)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for count, word in zip(range(1, allowed + 1), itertools.cycle(WORDS), strict=False):
            self._made += 1
            yield ChatDelta(ask.session, word + " ", tokens=(asked, count))
            # by the clock, for a sleep each would make many tokens slower than stated
            await asyncio.sleep(began + count * self._token_s - loop.time())
        finish = "stop" if allowed == self._tokens else "length"
        yield ChatDelta(ask.session, finish=finish, tokens=(asked, allowed))


def _call(ask: ChatRequest) -> ToolCall | None:
    options, last = ask.options, ask.messages[-1]
    if not options.tools or options.tool_choice == "none" or last.role == "tool":
        return None
    named = [tool.name for tool in options.tools if tool.name in last.content]
    if options.tool_choice not in ("auto", "required"):
        named = [options.tool_choice]
    if options.tool_choice == "required":
        named = named or [options.tools[0].name]
    return ToolCall(0, f"call_{len(ask.messages)}", named[0], "{}") if named else None
