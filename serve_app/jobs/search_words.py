"""What a person types to find words: any text is a valid search. Pure.

All words must occur in one passage; words in quotes must follow each other; the last word may be
the beginning of one.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

MOST_CHARS = 200
MOST_TERMS = 12
_PHRASE = re.compile(r'"([^"]*)"?|([^"\s]+)')
_WORD = re.compile(r"\w+")


class Term(NamedTuple):
    words: tuple[str, ...]
    """They follow each other."""
    is_prefix: bool = False
    """The last word is the beginning of one."""


def terms(text: str) -> list[Term]:
    """[] if there is no word in it."""
    found: list[Term] = []
    for quoted, plain in _PHRASE.findall(text[:MOST_CHARS]):
        if quoted:
            found.append(Term(tuple(_WORD.findall(quoted))))
        else:
            found += [Term((word,)) for word in _WORD.findall(plain)]
    found = [term for term in found if term.words][:MOST_TERMS]
    if found and not text.rstrip().endswith('"'):
        found[-1] = found[-1]._replace(is_prefix=True)
    return found


def for_sqlite(asked: Sequence[Term]) -> str:
    """For FTS5's MATCH: every word is in quotes, so none is an operator."""
    return " AND ".join(f'"{" ".join(it.words)}"{" *" if it.is_prefix else ""}' for it in asked)


def for_postgresql(asked: Sequence[Term]) -> str:
    """For `to_tsquery`: words have only letters, digits and underscores, so none is an operator."""
    return " & ".join(f"({' <-> '.join(it.words)}{':*' if it.is_prefix else ''})" for it in asked)


def in_name(asked: Sequence[Term], name: str) -> bool:
    """Whether a file name has all of the words."""
    words = " ".join(_WORD.findall(name.replace("_", " "))).casefold()
    return all(" ".join(it.words).casefold() in words for it in asked)
