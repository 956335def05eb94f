"""Splits text into clauses that can be spoken one at a time. Pure.

Nothing is lost: the clauses joined are the text.
"""

import re

FIRST_CHARS = 12
"""The first clause, for which somebody waits, may end at a comma after this many characters."""

LATER_CHARS = 120
"""Later clauses may end at a comma after this many characters."""

MAX_CHARS = 240
"""Any clause ends at a space, or in a word, after this many characters."""

ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr vs etc e.g i.e no vol fig approx dept inc ltd co u.s "
    "a.m p.m".split()
)
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]|\n+")  # noqa: RUF001
CLAUSE_END = re.compile(r"[,;:–—](?=\s)|[，；：、]")  # noqa: RUF001
MARKUP = re.compile(r"[*_`#~|<>]+|^\s*[-•]\s+|\[([^\]]*)\]\([^)]*\)", re.MULTILINE)


class ClauseSplitter:
    """Takes text as it is written, gives the clauses that are complete.

    A mark counts only once something follows it: "3." may become "3.5".
    """

    def __init__(self, first_chars: int = FIRST_CHARS, later_chars: int = LATER_CHARS) -> None:
        self._text = ""
        self._min_chars = first_chars
        self._later_chars = later_chars

    def push(self, delta: str) -> list[str]:
        """The clauses that are complete now."""
        self._text += delta
        clauses = []
        while end := self._end():
            clauses.append(self._text[:end])
            self._text = self._text[end:]
            self._min_chars = self._later_chars
        return clauses

    def flush(self) -> list[str]:
        """The rest, at the end of the text."""
        rest, self._text = self._text, ""
        return [rest] if rest else []

    def _end(self) -> int:
        """Where the first clause of the text ends; 0 if it is not complete."""
        sentence = self._sentence_end()
        comma = self._comma()
        if comma and (not sentence or comma < sentence):
            return comma
        if not sentence and len(self._text) > MAX_CHARS:
            return self._text.rfind(" ", 0, MAX_CHARS) + 1 or MAX_CHARS
        return sentence

    def _comma(self) -> int:
        ends = (mark.end() for mark in CLAUSE_END.finditer(self._text))
        return next((end for end in ends if end >= self._min_chars), 0)

    def _sentence_end(self) -> int:
        for mark in SENTENCE_END.finditer(self._text):
            before = self._text[: mark.end()]
            if before.strip() and not _is_abbreviated(before):
                return mark.end()
        return 0


def split(text: str) -> list[str]:
    """A whole text, split at every mark, for engines that speak piece by piece."""
    splitter = ClauseSplitter(0, 0)
    clauses = (*splitter.push(text), *splitter.flush())
    return [clause.strip() for clause in clauses if clause.strip()]


def speakable(clause: str) -> str:
    """The clause without Markdown's marks and the targets of links; "" if no word is left."""
    text = MARKUP.sub(lambda found: found.group(1) or " ", clause)
    return " ".join(text.split()) if re.search(r"\w", text) else ""


def _is_abbreviated(text: str) -> bool:
    """It ends in "Dr." or in a single capital, as in "J. Smith"; "1." may begin a list."""
    if not text.endswith("."):
        return False
    last = text[:-1].split()[-1:] or [""]
    word = last[0].strip("(\"'")
    initial = len(word) == 1 and word.isupper() and word != "I"
    return (
        initial or word.lower() in ABBREVIATIONS or (word.isdigit() and text[:-1].strip() == word)
    )
