"""The public keys of an identity provider, from its JSON Web Key Set (RFC 7517). Pure.

Only public keys that check signatures count: no shared secrets (`oct`), no private keys, none for
encryption, no weak ones. Each key fits the algorithms of its own kind, whatever a token says.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from jwt import PyJWK

MOST_KEYS = 100
RSA_BITS = range(2048, 8193)

KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""The kind of key, and its curve, that each algorithm needs."""

PRIVATE_PARTS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class JwksUnusable(ValueError):
    """The message says why, in few words, and quotes nothing."""


class TokenKeys:
    """The keys of one set that can be used."""

    def __init__(self, keys: Mapping[tuple[str, str], PyJWK], skipped: int) -> None:
        self._keys = keys
        self.skipped = skipped
        """Entries of the set that cannot be used."""

    def __len__(self) -> int:
        return len({kid for kid, _ in self._keys})

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """A token that names no key gets the only one that fits, if there is one."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def token_keys(jwks: bytes, algorithms: Collection[str]) -> TokenKeys:
    """Raises `JwksUnusable`."""
    keys: dict[tuple[str, str], PyJWK] = {}
    skipped = 0
    for entry in _entries(jwks):
        usable = _usable(entry, algorithms)
        for fits, key in usable.items():
            keys.setdefault((str(entry.get("kid", "")), fits), key)
        skipped += not usable
    if not keys:
        raise JwksUnusable("it has no public key for these algorithms")
    return TokenKeys(keys, skipped)


def _entries(jwks: bytes) -> list[dict[str, Any]]:
    try:
        entries = json.loads(jwks)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise JwksUnusable("it is no JSON Web Key Set") from None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise JwksUnusable(f"it is no JSON Web Key Set of at most {MOST_KEYS} keys")
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def _usable(entry: dict[str, Any], algorithms: Collection[str]) -> dict[str, PyJWK]:
    """The key, by the algorithms that it fits."""
    if PRIVATE_PARTS & entry.keys() or not _is_for_signatures(entry):
        return {}
    made = {fits: _made(entry, fits) for fits in algorithms if _fits(entry, fits)}
    return {fits: key for fits, key in made.items() if key}


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    verifies = isinstance(operations, list) and "verify" in operations
    return verifies and entry.get("use", "sig") == "sig"


def _fits(entry: dict[str, Any], algorithm: str) -> bool:
    kind = entry.get("kty"), entry.get("crv")
    return kind == KINDS[algorithm] and entry.get("alg", algorithm) == algorithm


def _made(entry: dict[str, Any], algorithm: str) -> PyJWK | None:
    """None for a key that is damaged or weak."""
    try:
        made = PyJWK(entry, algorithm)
    except Exception:  # the libraries raise many kinds
        return None
    return made if made.key_type != "RSA" or made.key.key_size in RSA_BITS else None
