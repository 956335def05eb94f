"""Fits a long conversation into the model's context window. Pure.

The newest messages are kept whole; older ones become a digest, one line each, with their first
words. Tokens are estimated at four characters each, because every model counts differently.
"""

from collections.abc import Sequence

from deployments.interfaces import Message

CHARS_PER_TOKEN = 4
MESSAGE_TOKENS = 4
"""The cost of a message besides its text."""

DIGEST_SHARE = 0.2
"""The share of the bound for the digest of the dropped messages."""

DIGEST_WORDS = 12
"""Kept of each dropped message."""

HEADING = "Earlier in this conversation, in short:"


def tokens(message: Message) -> int:
    chars = len(message.content) + sum(len(c.name) + len(c.arguments) for c in message.calls)
    return MESSAGE_TOKENS + -(-chars // CHARS_PER_TOKEN)


def fitted(instructions: str, history: Sequence[Message], bound: int) -> tuple[Message, ...]:
    """Instructions, a digest of the messages that do not fit, and the newest that do.

    The last message is always kept. A tool's output is never kept without its call.
    """
    system = (Message("system", instructions),) if instructions else ()
    left = bound - sum(map(tokens, system))
    if sum(map(tokens, history)) <= left:
        return (*system, *history)
    begin = _newest(history, int(left * (1 - DIGEST_SHARE)))
    digest = _digest(history[:begin], int(left * DIGEST_SHARE))
    if digest:
        text = f"{instructions}\n\n{digest}" if instructions else digest
        system = (Message("system", text),)
    return (*system, *history[begin:])


def _newest(history: Sequence[Message], bound: int) -> int:
    """The index of the first of the newest messages that fit."""
    begin, used = len(history) - 1, tokens(history[-1])
    while begin > 0 and used + tokens(history[begin - 1]) <= bound:
        begin -= 1
        used += tokens(history[begin])
    while begin < len(history) - 1 and history[begin].role == "tool":
        begin += 1
    return begin


def _digest(dropped: Sequence[Message], bound: int) -> str:
    """The newest lines that fit, oldest first."""
    lines: list[str] = []
    left = bound - len(HEADING) // CHARS_PER_TOKEN
    for message in reversed(dropped):
        line = _line(message)
        left -= len(line) // CHARS_PER_TOKEN + 1
        if left < 0:
            break
        if line:
            lines.append(line)
    return "\n".join([HEADING, *reversed(lines)]) if lines else ""


def _line(message: Message) -> str:
    words = message.content.split()
    if not words:
        return ""
    more = " …" if len(words) > DIGEST_WORDS else ""
    return f"- {message.role}: {' '.join(words[:DIGEST_WORDS])}{more}"
