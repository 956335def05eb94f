"""Streams of frames, as MP3 and AAC (ADTS), that have no header of the file before them. Pure.

One in two thousand files of anything begins with the bits of a frame. So all fields of its header
must be possible, and the next frame must be where it says.
"""

from collections.abc import Callable

Length = Callable[[bytes], int]
"""Bytes of the frame that begins here; 0 if none does."""

HEADER_BYTES = 6

LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
KBPS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): LOW,
    (False, 3): LOW,
}
"""Bit rates from index 1 on, of MPEG-1 and of what came later, by layer."""

RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By the two bits of the version: MPEG-1, 2, 2.5."""

ADTS_RATES = 13


def is_stream(head: bytes, length: Length) -> bool:
    """Whether `head` is a frame followed by another."""
    first = length(head)
    return first > 0 and length(head[first:]) > 0


def mpeg_bytes(head: bytes) -> int:
    """Of a frame of MPEG audio, layers I to III. One with a free bit rate counts as none."""
    if len(head) < HEADER_BYTES or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3 or head[3] & 3 == 2:
        return 0
    bps, hz = KBPS[version == 3, layer][bit_rate - 1] * 1000, RATES[version][rate]
    if layer == 1:
        return (12 * bps // hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bps // hz + padding


def adts_bytes(head: bytes) -> int:
    """Of a frame of AAC."""
    if len(head) < HEADER_BYTES or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    if head[2] >> 2 & 15 >= ADTS_RATES:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > HEADER_BYTES else 0
