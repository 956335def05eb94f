"""How wrong a recogniser is: the word error rate."""

from itertools import pairwise


def word_error_rate(said: str, heard: str) -> float:
    """Words to insert, delete or replace to get from `heard` to `said`, per word of `said`."""
    wanted, got = said.split(), heard.split()
    row = list(range(len(got) + 1))
    for number, word in enumerate(wanted, 1):
        below = [number]
        for other, (diagonal, above) in zip(got, pairwise(row), strict=True):
            below.append(min(above + 1, below[-1] + 1, diagonal + (word != other)))
        row = below
    return row[-1] / len(wanted)
