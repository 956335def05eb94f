"""A transcriber that hears a word which is in no file, setting or argument: only in transcripts."""

from deployments.interfaces import Option
from tests.own_engine import Shout

WORD = "HAPAX" + "LEGOMENON"


class Secretive(Shout):
    name = "secretive"
    options = frozenset({Option.HOTWORDS})

    def __init__(self) -> None:
        super().__init__(WORD)
