"""Gives memory that this process no longer uses back to the system.

glibc keeps freed memory as long as something in use lies above it, so that after a burst of audio a
replica would keep what the burst took: one small object in a hundred megabytes is enough. Elsewhere
than on glibc this does nothing.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

WORTH_BYTES = 64 << 20
"""Less stays for the next burst."""


class Heap(NamedTuple):
    free_bytes: Callable[[], int]
    """Freed and not reused; those that the system has back are among them."""
    trim: Callable[[], None]
    """Gives all of them back. Takes about 80 ms for a GiB, and the process cannot allocate then."""


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def glibc() -> Heap | None:
    """The heap of this process, if glibc manages it."""
    library = ctypes.CDLL(None)
    try:
        mallinfo2, malloc_trim = library.mallinfo2, library.malloc_trim
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2
    return Heap(lambda: int(mallinfo2().fordblks), lambda: malloc_trim(0))


class HeapTrimmer:
    """`look`, every few seconds, trims when a burst is over: much is free, and was at the last
    look."""

    def __init__(self, heap: Heap | None) -> None:
        self._heap = heap
        self._given_back = 0
        """Free bytes that the system has."""
        self._before = 0

    def look(self) -> bool:
        """Whether it has trimmed. May take a while: not for an event loop."""
        if self._heap is None:
            return False
        free = self._heap.free_bytes()
        self._given_back = min(self._given_back, free)
        free_twice, self._before = min(free, self._before), free
        if free_twice - self._given_back < WORTH_BYTES:
            return False
        self._heap.trim()
        self._given_back = free
        return True
