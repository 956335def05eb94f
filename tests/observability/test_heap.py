"""Memory goes back to the system when a burst is over, and not in the middle of it."""

import subprocess
import sys

from serve_app.observability.heap import WORTH_BYTES, Heap, HeapTrimmer, glibc

MIB = 1 << 20


def trims(*free: int) -> list[bool]:
    """Whether each look trims, when this much is free."""
    left = iter(free)
    trimmer = HeapTrimmer(Heap(lambda: next(left), lambda: None))
    return [trimmer.look() for _ in free]


def test_a_burst_that_is_over_is_given_back_once() -> None:
    much = 4 * WORTH_BYTES
    assert trims(0, much, much, much, much) == [False, False, True, False, False]


def test_what_is_soon_used_again_is_left() -> None:
    much = 4 * WORTH_BYTES
    assert trims(0, much, 0, much, 0, much) == [False] * 6
    assert trims(*[WORTH_BYTES - 1] * 4) == [False] * 4


def test_each_burst_is_given_back() -> None:
    much = 4 * WORTH_BYTES
    assert trims(much, much, 0, much, much) == [False, True, False, False, True]


BURST = """
import psutil
from serve_app.observability.heap import HeapTrimmer, glibc

def resident():
    return psutil.Process().memory_info().rss >> 20

trimmer = HeapTrimmer(glibc())
chunks, kept = [], []
for number in range(60_000):
    chunks.append(bytes(3200))
    if number % 50 == 0:
        kept.append(bytes(700))
at_most = resident()
del chunks
trimmed = trimmer.look(), trimmer.look()
print(at_most, resident(), trimmed)
"""


def test_the_system_gets_the_memory_of_a_burst_of_audio() -> None:
    if glibc() is None:
        return  # another libc: nothing to give back
    said = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True)
    at_most, after, trimmed = said.stdout.split(maxsplit=2)
    assert trimmed.strip() == "(False, True)"
    assert int(at_most) > 180 and int(after) < int(at_most) / 3
