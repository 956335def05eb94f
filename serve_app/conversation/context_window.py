"""What of a long conversation the model gets to see, within a bound in tokens. Pure.

The newest messages go in whole; of older ones a digest, a line each, that says what was said first
in it. Tokens are estimated, at four characters each, for every model counts its own.
"""

from collections.abc import Sequence

from deployments.interfaces import Message

CHARS_PER_TOKEN = 4
MESSAGE_TOKENS = 4
"""What a message costs beside its words."""

DIGEST_SHARE = 0.2
"""Of the bound, for the digest of what was dropped."""

DIGEST_WORDS = 12
"""Kept of each dropped message."""

HEADING = "Earlier in this conversation, in short:"


def tokens(message: Message) -> int:
    chars = len(message.content) + sum(len(c.name) + len(c.arguments) for c in message.calls)
    return MESSAGE_TOKENS + -(-chars // CHARS_PER_TOKEN)


def remember(instructions: str, history: Sequence[Message], bound: int) -> tuple[Message, ...]:
    """Instructions, a digest of what does not fit, and the newest messages that do.

    The last message always goes in. An answer of a tool never stands without its call.
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
    """Where the newest messages begin that fit."""
    begin, used = len(history) - 1, tokens(history[-1])
    while begin > 0 and used + tokens(history[begin - 1]) <= bound:
        begin -= 1
        used += tokens(history[begin])
    while begin < len(history) - 1 and history[begin].role == "tool":
        begin += 1
    return begin


def _digest(dropped: Sequence[Message], bound: int) -> str:
    """The newest lines that fit, in their order."""
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
