"""The embedded engine: ELIZA, which reflects what was said by patterns and understands nothing.

After J. Weizenbaum, "ELIZA: a computer program for the study of natural language communication
between man and machine", Communications of the ACM 9(1), 1966: the first rule that
matches decides, the text after its keyword is reflected, and a template is filled in. Asked what it
is, it says so. It ignores tools, system prompts and sampling options.
"""

import re
import zlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from deployments.interfaces import ChatDelta, ChatRequest, EngineFailed, Option

REFLECTIONS = {
    "i": "you",
    "i'm": "you are",
    "i'd": "you would",
    "i've": "you have",
    "i'll": "you will",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "am": "are",
    "was": "were",
    "you": "I",
    "you're": "I am",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
}


class Rule(NamedTuple):
    """The replies to a pattern; `{0}` is the text of its group, reflected."""

    pattern: re.Pattern[str]
    replies: tuple[str, ...]


def _rule(pattern: str, *replies: str) -> Rule:
    return Rule(re.compile(rf"\b{pattern}", re.IGNORECASE), replies)


RULES = (
    _rule(
        r"(?:who|what) are you\b",
        "I am ELIZA, a small program that answers by patterns. I do not understand what you say.",
    ),
    _rule(
        r"are you (?:a |an )?(?:human|person|real|robot|machine|computer|program|ai)\b",
        "I am a program: ELIZA, a set of patterns from 1966.",
    ),
    _rule(r"(?:good)?bye\b", "Goodbye. It was good to hear you."),
    _rule(r"(?:hello|hi|hey|good (?:morning|evening|day))\b", "Hello. What is on your mind?"),
    _rule(r"thank", "You are welcome. What else would you like to talk about?"),
    _rule(r"sorry\b", "There is no need to be sorry.", "Please do not apologise."),
    _rule(
        r"weather\b",
        "I know nothing of the weather. How does the weather make you feel?",
        "I cannot see outside. Why do you ask about the weather?",
    ),
    _rule(r"remember (.+)", "Do you often think of {0}?", "Why do you remember {0} just now?"),
    _rule(r"if (.+)", "Do you think it is likely that {0}?", "What would it mean if {0}?"),
    _rule(r"i dream(?:t|ed)? (.+)", "What does that dream suggest to you?"),
    _rule(r"because (.+)", "Is that the real reason?", "What other reasons might there be?"),
    _rule(r"i need (.+)", "Why do you need {0}?", "What would it mean to you to have {0}?"),
    _rule(r"i (?:want|would like|wish) (.+)", "What would it mean to you to have {0}?"),
    _rule(r"i can'?t (.+)", "How do you know that you cannot {0}?", "Have you tried?"),
    _rule(r"i(?:'m| am) (.+)", "How long have you been {0}?", "Why are you {0}?"),
    _rule(r"i feel (.+)", "Do you often feel {0}?", "Tell me more about feeling {0}."),
    _rule(r"i (?:think|believe) (.+)", "Do you really think so?", "What makes you think {0}?"),
    _rule(r"you(?:'re| are) (.+)", "What makes you think that I am {0}?"),
    _rule(r"can you (.+)", "You want me to {0}? I only answer by patterns."),
    _rule(
        r"my (mother|father|sister|brother|wife|husband|son|daughter|family)\b",
        "Tell me more about your {0}.",
    ),
    _rule(r"my (.+)", "Why do you say that your {0}?", "Tell me more about your {0}."),
    _rule(
        r"(?:what|where|when|who|why|how)\b",
        "Why do you ask?",
        "What answer would please you most?",
        "What do you think?",
    ),
    _rule(r"yes\b", "You seem quite sure.", "I see. Please go on."),
    _rule(r"no\b", "Why not?", "You are being a little negative. Why?"),
    _rule(r"(?:everyone|everybody|nobody|no one|always|never)\b", "Can you think of an example?"),
)
DEFAULT = (
    "Please go on.",
    "What does that suggest to you?",
    "I see. Tell me more about that.",
    "How do you feel about that?",
)


def respond(said: str, turn: int) -> str:
    """The answer to `said`; `turn` varies the answers to repeated input."""
    for rule in RULES:
        if found := rule.pattern.search(said):
            reply = rule.replies[turn % len(rule.replies)]
            return reply.format(*(reflect(group) for group in found.groups()))
    return DEFAULT[(zlib.crc32(said.encode()) + turn) % len(DEFAULT)]


def reflect(text: str) -> str:
    """The text with its pronouns exchanged: "my cat loves me" becomes "your cat loves you"."""
    clause = re.split(r"[.!?,;]", text, maxsplit=1)[0]
    return " ".join(REFLECTIONS.get(word.lower(), word) for word in clause.split())


class Eliza:
    """Implements `ChatEngine`. A token is a word."""

    name = "eliza"
    options = frozenset({Option.MAX_TOKENS})

    def __init__(self) -> None:
        self._generated = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def generated(self) -> int:
        return self._generated

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        if request.options.tool_choice not in ("auto", "none"):
            raise EngineFailed("eliza cannot call tools; tool_choice must be auto or none")
        said = [message.content for message in request.messages if message.role == "user"]
        prompt = sum(len(message.content.split()) for message in request.messages)
        words = respond(said[-1] if said else "", len(said)).split()
        allowed = words[: request.options.max_tokens]
        for count, word in enumerate(allowed, 1):
            self._generated += 1
            space = " " if count < len(allowed) else ""
            yield ChatDelta(request.session, word + space, tokens=(prompt, count))
        finish = "stop" if len(allowed) == len(words) else "length"
        yield ChatDelta(request.session, finish=finish, tokens=(prompt, len(allowed)))
