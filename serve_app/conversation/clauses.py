"""Text deltas in, speakable clauses out. Pure.

The first clause is cut as early as one can be spoken well, for somebody waits for it; later
ones at the ends of sentences, or at a comma once they are long. Nothing is lost: clauses joined are
the text.
"""

import re

FIRST_CHARS = 12
"""The first clause may end at a comma after so many characters."""

LONG_CHARS = 120
"""Any clause may end at a comma after so many characters, and at a space after twice as many."""

ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr vs etc e.g i.e no vol fig approx dept inc ltd co u.s "
    "a.m p.m".split()
)
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]|\n+")  # noqa: RUF001
CLAUSE_END = re.compile(r"[,;:–—](?=\s)|[，；：、]")  # noqa: RUF001
MARKUP = re.compile(r"[*_`#~|<>]+|^\s*[-•]\s+|\[([^\]]*)\]\([^)]*\)", re.MULTILINE)


class Sentences:
    """Feeds on deltas. A mark counts only once something follows it: "3." may become "3.5"."""

    def __init__(self) -> None:
        self._text = ""
        self._clauses = 0

    def push(self, delta: str) -> list[str]:
        """The clauses that are complete now."""
        self._text += delta
        clauses = []
        while end := self._end():
            clauses.append(self._text[:end])
            self._text = self._text[end:]
            self._clauses += 1
        return clauses

    def flush(self) -> list[str]:
        """What is left, at the end of the text."""
        rest, self._text = self._text, ""
        return [rest] if rest else []

    def _end(self) -> int:
        """Where the first clause of the text ends; 0 if it is not complete."""
        sentence = self._sentence_end()
        least = LONG_CHARS if self._clauses else FIRST_CHARS
        comma = next((m.end() for m in CLAUSE_END.finditer(self._text) if m.end() >= least), 0)
        if comma and (not sentence or comma < sentence):
            return comma
        if not sentence and len(self._text) > 2 * LONG_CHARS:
            return self._text.rfind(" ", 0, 2 * LONG_CHARS) + 1 or 2 * LONG_CHARS
        return sentence

    def _sentence_end(self) -> int:
        for mark in SENTENCE_END.finditer(self._text):
            before = self._text[: mark.end()]
            if before.strip() and not _is_abbreviated(before):
                return mark.end()
        return 0


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


def speakable(clause: str) -> str:
    """Without what is meant for the eye: Markdown's marks, links' targets. "" has no words."""
    said = MARKUP.sub(lambda found: found.group(1) or " ", clause)
    return " ".join(said.split()) if re.search(r"\w", said) else ""
