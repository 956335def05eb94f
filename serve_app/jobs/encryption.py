"""Objects encrypted with AES-256-GCM in chunks, so that any range can be read. Pure, except for
random keys and nonces.

A key-encryption key (from the environment or a file) wraps each job's key; that wraps a data key
for each of its objects, which is in the object's header. A chunk is bound to tenant, object, its
number and whether it is the last one, so changes, truncation, reordering and swapping are detected.
Deleting a job's row deletes its key, and makes all remaining copies of its objects unreadable.

    header = "VXR1" | nonce (12) | data key, wrapped (48)        AAD "object key|" object
    chunk  = nonce (12) | ciphertext (up to 64 KiB) | tag (16)   AAD object | number | last

NIST SP 800-38D: random 96-bit nonces, far below 2^32 for any key.
"""

import secrets
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"VXR1"
KEY_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16
CHUNK_BYTES = 64 << 10
SEALED_CHUNK_BYTES = NONCE_BYTES + CHUNK_BYTES + TAG_BYTES
HEADER_BYTES = len(MAGIC) + NONCE_BYTES + KEY_BYTES + TAG_BYTES


class Damaged(Exception):
    """The data was changed, or was encrypted with another key."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def wrap(key: bytes, secret: bytes, bound_to: str) -> bytes:
    """`secret` encrypted with `key`; it can be decrypted only with the same `bound_to`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound_to.encode())


def unwrap(key: bytes, wrapped: bytes, bound_to: str) -> bytes:
    """Raises `Damaged`."""
    nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, sealed, bound_to.encode())
    except InvalidTag as error:
        raise Damaged("the data was changed, or has another key") from error


class Seal:
    """The data key of one object."""

    def __init__(self, key: bytes, name: str) -> None:
        self._key = key
        self._name = name

    @classmethod
    def new(cls, job_key: bytes, name: str) -> "tuple[Seal, bytes]":
        """A seal, and the header of the object."""
        key = new_key()
        return cls(key, name), MAGIC + wrap(job_key, key, f"object key|{name}")

    @classmethod
    def of(cls, job_key: bytes, name: str, header: bytes) -> "Seal":
        """Raises `Damaged`."""
        if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
            raise Damaged("this is not an encrypted object")
        return cls(unwrap(job_key, header[len(MAGIC) :], f"object key|{name}"), name)

    def close(self, plain: bytes, number: int, last: bool) -> bytes:
        return wrap(self._key, plain, self._bound(number, last))

    def open(self, sealed: bytes, number: int, last: bool) -> bytes:
        """Raises `Damaged`."""
        return unwrap(self._key, sealed, self._bound(number, last))

    def _bound(self, number: int, last: bool) -> str:
        return f"{self._name}|{number}|{int(last)}"


class Encryption:
    """Encrypts a stream of pieces of any size; `finish` returns the last chunk."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._waiting = bytearray()
        self._number = 0

    def push(self, piece: bytes) -> Iterator[bytes]:
        self._waiting += piece
        while len(self._waiting) > CHUNK_BYTES:  # a full one may be the last
            plain = bytes(self._waiting[:CHUNK_BYTES])
            del self._waiting[:CHUNK_BYTES]
            yield self._seal.close(plain, self._number, last=False)
            self._number += 1

    def finish(self) -> bytes:
        return self._seal.close(bytes(self._waiting), self._number, last=True)


def plain_size(sealed: int) -> int:
    """Plain bytes in an encrypted object of `sealed` bytes. Raises `Damaged`."""
    body = sealed - HEADER_BYTES
    chunks = -(-body // SEALED_CHUNK_BYTES)
    if body < NONCE_BYTES + TAG_BYTES:
        raise Damaged("the object is truncated")
    return body - chunks * (NONCE_BYTES + TAG_BYTES)


def chunks_of(start: int, end: int, size: int) -> range:
    """The chunks that hold bytes `start` to `end` of `size`."""
    last = min(last_chunk(size), max(start, end - 1) // CHUNK_BYTES)
    return range(start // CHUNK_BYTES, last + 1)


def last_chunk(size: int) -> int:
    return max(0, -(-size // CHUNK_BYTES) - 1)


def offset_of(chunk: int) -> int:
    """The byte at which a chunk begins in the encrypted object."""
    return HEADER_BYTES + chunk * SEALED_CHUNK_BYTES
