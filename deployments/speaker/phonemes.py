"""Text to phonemes for Kokoro, with misaki, in all its languages; nothing is downloaded.

For English, misaki gets the part of speech of a word from spaCy's `en_core_web_sm`, which is not on
PyPI. Where it is not installed, a few rules replace it. They matter for words that are spelled
alike and pronounced differently ("read", "use", "live").
"""

from collections.abc import Callable
from typing import Any

LANGUAGES = {
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
    "z": "cmn",
}
"""BCP 47 tags by the first letter of a voice's name."""

TAGS = {
    "TO": "to",
    "DT": "a an the this these those each every no",
    "IN": "of in on for at by with from into about as if than because while",
    "PRP": "i you he she it we they me him her us them",
    "PRP$": "my your his its our their",
    "CC": "and or but nor",
    "MD": "can could may might must shall should will would",
    "VBZ": "is has does",
    "VBP": "am are have do",
    "VBD": "was were had did",
    "EX": "there",
    "WDT": "which what whose",
    "WRB": "when where why how",
}
"""The Penn tags of words that always have the same one."""

OF_WORD = {word: tag for tag, words in TAGS.items() for word in words.split()}
OF_MARK = {",": ",", "“": "``", "”": "''", '"': "''", "(": "-LRB-", ")": "-RRB-"}
BEFORE_VERB = ("TO", "MD", "PRP", "EX")


class Phonemes:
    """The phonemes of one language; `letter` is the first letter of its voices."""

    def __init__(self, letter: str) -> None:
        self._speak = _g2p(letter)

    def __call__(self, text: str) -> str:
        phonemes: str = self._speak(text)[0] or ""
        return phonemes.strip()


def _g2p(letter: str) -> Callable[[str], Any]:
    if letter in "ab":
        return _english(british=letter == "b")
    if letter == "j":
        from misaki.cutlet import Cutlet

        return Cutlet()  # type: ignore[no-any-return]
    if letter == "z":
        import jieba
        from misaki.zh import ZHG2P

        jieba.setLogLevel("WARNING")
        return ZHG2P()  # type: ignore[no-any-return]
    from misaki.espeak import EspeakG2P

    return EspeakG2P(language=LANGUAGES[letter])  # type: ignore[no-any-return]


def _english(british: bool) -> Callable[[str], Any]:
    """misaki's `G2P` without its constructor, which would download spaCy's model."""
    from misaki import en, espeak

    g2p = en.G2P.__new__(en.G2P)
    g2p.version = None
    g2p.british = british
    g2p.nlp = _tagger()
    g2p.lexicon = en.Lexicon(british)
    g2p.fallback = espeak.EspeakFallback(british=british)
    g2p.unk = ""
    return g2p  # type: ignore[no-any-return]


def _tagger() -> Any:
    import spacy
    from spacy.language import Language

    if spacy.util.is_package("en_core_web_sm"):
        return spacy.load("en_core_web_sm", enable=["tok2vec", "tagger"])
    if not Language.has_factory("voxray_rules"):
        Language.component("voxray_rules", func=_tagged)
    nlp = spacy.blank("en")
    nlp.add_pipe("voxray_rules")
    return nlp


def _tagged(doc: Any) -> Any:
    before = ""
    for token in doc:
        token.tag_ = before = tag(token.text, before, token.i == 0)
    return doc


def tag(word: str, before: str, first: bool) -> str:
    """A Penn tag for a word; `before` is the tag of the word before it."""
    known = OF_WORD.get(word.lower()) or OF_MARK.get(word)
    if known:
        return known
    if any(map(str.isdigit, word)):
        return "CD"
    if word in "$£€":
        return "$"
    if not any(map(str.isalpha, word)):
        return "." if word in ".!?" else ":"
    return _by_shape(word, before, first)


def _by_shape(word: str, before: str, first: bool) -> str:
    if word[0].isupper() and not first:
        return "NNP"
    if before in BEFORE_VERB:
        return "VBD" if word.endswith("ed") else "VB"
    if before in ("VBP", "VBZ", "VBD") and word.endswith("ed"):
        return "VBN"
    if word.endswith("ing"):
        return "VBG"
    if word.endswith("ly"):
        return "RB"
    return "NNS" if word.endswith("s") and not word.endswith("ss") else "NN"
