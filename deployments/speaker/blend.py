"""A voice blended of others, as Kokoro-FastAPI writes it: `af_heart(2)+af_bella(1)`. Pure."""

import re
from typing import NamedTuple

PART = re.compile(r"(?P<voice>[\w-]+)(?:\((?P<weight>\d+(?:\.\d+)?)\))?")
MOST = 8


class Part(NamedTuple):
    voice: str
    weight: float
    """Of all: the weights of a blend add up to 1."""


def parts(blend: str) -> tuple[Part, ...]:
    """Its voices with their weights; without one a voice weighs 1.

    Raises `ValueError` for anything else.
    """
    found = [PART.fullmatch(part.strip()) for part in blend.split("+")]
    if not all(found) or len(found) > MOST:
        raise ValueError(f"a blend is at most {MOST} of voice(weight), joined by +")
    weights = [float(part["weight"] or 1) for part in found if part]
    if sum(weights) <= 0:
        raise ValueError("the weights of a blend add up to nothing")
    return tuple(
        Part(part["voice"], weight / sum(weights))
        for part, weight in zip(found, weights, strict=True)
        if part
    )
