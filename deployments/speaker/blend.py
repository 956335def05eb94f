"""Blends of voices, in the notation of Kokoro-FastAPI: `af_heart(2)+af_bella(1)`. Pure."""

import re
from typing import NamedTuple

PART = re.compile(r"(?P<voice>[\w-]+)(?:\((?P<weight>\d+(?:\.\d+)?)\))?")
MOST = 8


class Part(NamedTuple):
    voice: str
    weight: float
    """The share of this voice; all shares of a blend add up to 1."""


def parts(blend: str) -> tuple[Part, ...]:
    """The voices with their weights. A voice without a weight counts 1.

    Raises `ValueError` for any other notation.
    """
    found = [PART.fullmatch(part.strip()) for part in blend.split("+")]
    if not all(found) or len(found) > MOST:
        raise ValueError(f"a blend is voice(weight)+voice(weight)…, with at most {MOST} voices")
    weights = [float(part["weight"] or 1) for part in found if part]
    if sum(weights) <= 0:
        raise ValueError("the weights of a blend must add up to more than 0")
    return tuple(
        Part(part["voice"], weight / sum(weights))
        for part, weight in zip(found, weights, strict=True)
        if part
    )
