"""Which keys of a key set are used."""

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from serve_app.identity.token_keys import KINDS, MOST_KEYS, JwksUnusable, TokenKeys, token_keys
from tests.identity.provider import ALGORITHMS, key_set, private_key, public_jwk

GOOD = public_jwk("ES256", "good")


def found(*entries: Any) -> TokenKeys:
    return token_keys(key_set(*entries, GOOD), ALGORITHMS)


def with_private(algorithm: str) -> dict[str, Any]:
    make = jwt.get_algorithm_by_name(algorithm)
    made: dict[str, Any] = json.loads(make.to_jwk(private_key(algorithm)))
    return {**made, "kid": "k1"}


def weak() -> dict[str, Any]:
    small = rsa.generate_private_key(65537, 1024).public_key()
    return {**json.loads(RSAAlgorithm.to_jwk(small)), "kid": "k1"}


@pytest.mark.parametrize("algorithm", KINDS)
def test_each_algorithm_has_its_kind_of_key(algorithm: str) -> None:
    keys = token_keys(key_set(public_jwk(algorithm)), [algorithm])
    assert keys.find("k1", algorithm)
    assert (len(keys), keys.skipped) == (1, 0)


def test_a_key_without_an_algorithm_fits_those_of_its_kind() -> None:
    entry = public_jwk("RS256", alg=None, use=None, key_ops=["verify"])
    keys = token_keys(key_set(entry, GOOD), ["RS256", "PS256", "ES256"])
    assert keys.find("k1", "RS256") and keys.find("k1", "PS256")
    assert keys.find("k1", "ES256") is None
    assert keys.find("good", "RS256") is None


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "k1", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k1", "alg": "RS256"},
        with_private("RS256"),
        with_private("ES256"),
        weak(),
        public_jwk("RS256", use="enc"),
        public_jwk("RS256", key_ops=["encrypt"]),
        public_jwk("RS256", key_ops=5),
        public_jwk("RS256", alg="RS512"),
        public_jwk("RS256", alg="HS256"),
        public_jwk("RS256", alg="none"),
        public_jwk("RS256", kty="EC"),
        public_jwk("RS256", n="AA"),
        public_jwk("RS256", n=5),
        public_jwk("RS256", n="!!"),
        public_jwk("RS256", n=None),
        public_jwk("RS256", e="AA"),
        public_jwk("RS256", e=["AQAB"]),
        public_jwk("ES256", crv="P-384"),
        public_jwk("ES256", crv="secp256k1"),
        public_jwk("ES256", x="AAAA"),
        public_jwk("EdDSA", x="AAAA"),
        public_jwk("ES384"),
        {"kid": "k1"},
        {"kty": ["RSA"], "kid": "k1"},
        {"kty": "RSA", "use": {}, "kid": {}},
        "RSA",
        None,
        [],
    ],
    ids=lambda entry: str(entry)[:30],
)
def test_other_keys_are_skipped_and_the_rest_is_used(entry: Any) -> None:
    keys = found(entry)
    assert (len(keys), keys.skipped) == (1, 1)
    assert not any(keys.find("k1", algorithm) for algorithm in ALGORITHMS)
    assert keys.find("good", "ES256")


def test_a_token_that_names_no_key_gets_the_only_one_that_fits() -> None:
    assert found().find(None, "ES256")
    assert found().find(None, "RS256") is None
    assert found(public_jwk("ES256", "other")).find(None, "ES256") is None


@pytest.mark.parametrize("kid", ["../../etc/passwd", "", "k1' OR 1=1", "https://evil.example/"])
def test_a_name_of_a_key_is_only_a_name(kid: str) -> None:
    assert found(public_jwk("RS256")).find(kid, "RS256") is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [{}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        key_set(*[{"kid": str(number)} for number in range(MOST_KEYS)], GOOD),
    ],
    ids=lambda body: str(body[:20]),
)
def test_what_is_no_key_set_is_refused_without_a_word_of_it(body: bytes) -> None:
    with pytest.raises(JwksUnusable, match=r"no JSON Web Key Set|no public key") as refused:
        token_keys(body, ALGORITHMS)
    assert "html" not in str(refused.value)
