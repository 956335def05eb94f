"""Text in pieces that are spoken one at a time. Pure."""

import re
import textwrap

SENTENCE_END = re.compile(r"(?<=[.!?;:,\n])\s+|(?<=[。！？])")  # noqa: RUF001
MAX_SENTENCE = 400
"""Characters; without marks it is cut at a space, or anywhere."""


def sentences(text: str) -> list[str]:
    """The text's clauses, none longer than `MAX_SENTENCE`."""
    return [
        line for piece in SENTENCE_END.split(text) for line in textwrap.wrap(piece, MAX_SENTENCE)
    ]
