"""Sealed objects: what was changed, cut off or swapped is noticed, and any range can be read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.jobs import encryption
from serve_app.jobs.encryption import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SEALED_CHUNK_BYTES,
    Damaged,
    Encryption,
    Seal,
)

KEY = bytes(range(32))


def sealed(plain: bytes, name: str = "a/job/audio", piece: int = 1000) -> bytes:
    seal, header = Seal.new(KEY, name)
    sealing_ = Encryption(seal)
    body = b"".join(
        chunk
        for at in range(0, len(plain), piece)
        for chunk in sealing_.push(plain[at : at + piece])
    )
    return header + body + sealing_.finish()


def opened(data: bytes, name: str = "a/job/audio", key: bytes = KEY) -> bytes:
    seal = Seal.of(key, name, data[:HEADER_BYTES])
    size = encryption.plain_size(len(data))
    last = encryption.last_chunk(size)
    return b"".join(
        seal.open(data[encryption.offset_of(n) : encryption.offset_of(n + 1)], n, n == last)
        for n in encryption.chunks_of(0, max(1, size), size)
    )


SIZES = [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_is_opened(size: int) -> None:
    plain = bytes(n * 7 % 251 for n in range(size))
    data = sealed(plain, piece=60_000)
    assert opened(data) == plain and encryption.plain_size(len(data)) == size
    assert size < 16 or plain[:16] not in data


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4 * CHUNK_BYTES), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_range_needs_the_chunks_it_lies_in(size: int, start: int, length: int) -> None:
    start = min(start, max(0, size - 1))
    end = min(size, start + length)
    chunks = encryption.chunks_of(start, end, size)
    assert chunks[0] * CHUNK_BYTES <= start
    assert (chunks[-1] + 1) * CHUNK_BYTES >= end and len(chunks) <= (end - start) // CHUNK_BYTES + 2


def test_every_change_is_noticed() -> None:
    plain = bytes(2 * CHUNK_BYTES + 100)
    data = sealed(plain)
    for at in (5, HEADER_BYTES - 1, HEADER_BYTES + 3, HEADER_BYTES + 40, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(Damaged):
            opened(bytes(changed))
    first = slice(HEADER_BYTES, HEADER_BYTES + SEALED_CHUNK_BYTES)
    second = slice(first.stop, first.stop + SEALED_CHUNK_BYTES)
    for damaged in (
        data[:-1],
        data[: second.stop],  # cut off at a chunk's border
        data[: first.stop],
        data[:HEADER_BYTES] + data[second] + data[first] + data[second.stop :],
        data[: first.stop] + data[first] + data[second.stop :],
    ):
        with pytest.raises(Damaged):
            opened(damaged)


def test_an_object_is_of_use_only_where_it_belongs() -> None:
    data = sealed(b"secret")
    for name, key in (("b/job/audio", KEY), ("a/job/result", KEY), ("a/job/audio", bytes(32))):
        with pytest.raises(Damaged):
            opened(data, name, key)


def test_nonces_and_keys_are_never_used_twice() -> None:
    one, other = sealed(b"x" * 10), sealed(b"x" * 10)
    assert one != other and len({one[4:16], other[4:16]}) == 2
    body = sealed(bytes(8 * CHUNK_BYTES))[HEADER_BYTES:]
    nonces = {body[at : at + 12] for at in range(0, len(body), SEALED_CHUNK_BYTES)}
    assert len(nonces) == 8


@pytest.mark.parametrize("data", [b"", b"VXR1", b"plain audio" * 20])
def test_what_is_no_sealed_object_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Damaged):
        Seal.of(KEY, "a", data[:HEADER_BYTES])
    with pytest.raises(Damaged):
        encryption.plain_size(min(len(data), HEADER_BYTES))
