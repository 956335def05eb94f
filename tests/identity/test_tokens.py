"""S2: tokens of an identity provider: whose they are, and the many that are none."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from serve_app.config.auth import AuthConfig, JwtConfig
from serve_app.errors import ClientError
from serve_app.identity import tokens
from serve_app.identity.authenticator import Authenticator, check_keys
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import ALL, Principal, Scope
from serve_app.identity.token_keys import KINDS
from serve_app.jobs.database import Database
from tests.identity.provider import (
    claims,
    in_file,
    key_set,
    part,
    private_key,
    provider,
    public_jwk,
    signed,
    token,
)

WANTED = frozenset({Scope.TRANSCRIBE, Scope.JOBS})


def accepting(config: JwtConfig) -> Authenticator:
    auth = AuthConfig(jwt=config)
    assert auth.required
    return Authenticator(auth, Database("sqlite+aiosqlite:///unused.db"))


@pytest.fixture
def known(tmp_path: Path) -> Authenticator:
    return accepting(in_file(tmp_path))


def refusal(known: Authenticator, credential: str) -> RefusalReason:
    with pytest.raises(LoginRefused) as refused:
        known.authenticated(credential)
    assert (refused.value.code, refused.value.status) == ("invalid_api_key", 401)
    assert credential not in refused.value.message
    return refused.value.reason


def test_a_token_brings_its_tenant_its_scopes_and_its_end(known: Authenticator) -> None:
    made = claims()
    caller = known.authenticated(signed(made))
    assert caller == Principal("acme", "jwt:ann", WANTED, made["exp"] + 30)
    assert known.authenticated(token("ES256", "k2")).tenant == "acme"


@pytest.mark.parametrize("algorithm", KINDS)
def test_every_algorithm_works_if_it_is_configured_and_only_then(
    tmp_path: Path, algorithm: str
) -> None:
    body = key_set(public_jwk(algorithm))
    other = "ES384" if algorithm == "ES256" else "ES256"
    both = key_set(public_jwk(algorithm), public_jwk(other, "k2"))
    one = accepting(in_file(tmp_path, body, algorithms=(algorithm,)))
    assert one.authenticated(token(algorithm)).tenant == "acme"
    without = accepting(in_file(tmp_path, both, algorithms=(other,)))
    assert refusal(without, token(algorithm)) == RefusalReason.TOKEN


def test_a_token_without_the_name_of_a_key_gets_the_only_one(tmp_path: Path) -> None:
    one = accepting(in_file(tmp_path, key_set(public_jwk("RS256", "k1"))))
    assert one.authenticated(token(kid=None)).tenant == "acme"
    two = accepting(
        in_file(tmp_path, key_set(public_jwk("RS256", "k1"), public_jwk("RS256", "k9")))
    )
    assert refusal(two, token(kid=None)) == RefusalReason.UNKNOWN


def timed(**changed: Any) -> str:
    """A token whose claims may have a time from now."""
    at = {name: it.now + int(time.time()) for name, it in changed.items() if isinstance(it, From)}
    return token(**{**changed, **at})


def public_pem() -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = private_key("RS256").public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem


def hmac_signed(secret: bytes) -> str:
    """As an attacker makes it, whose library allows every secret."""
    algorithm = jwt.get_algorithm_by_name("HS256")
    body = f"{part({'alg': 'HS256', 'kid': 'k1'})}.{part(claims())}"
    return f"{body}.{part(algorithm.sign(body.encode(), secret))}"


def forged(**header: Any) -> str:
    """Signed by a key of the attacker's own."""
    return jwt.encode(claims(), private_key("RS256", "evil"), "RS256", {"kid": "k1", **header})


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    return f"{part(header)}.{part(claims())}.{signature}"


def altered(made: str, **changed: Any) -> str:
    header, _, signature = made.split(".")
    return f"{header}.{part(claims(**changed))}.{signature}"


def detached() -> str:
    body = json.dumps(claims()).encode()
    key = private_key("RS256")
    headers = {"kid": "k1", "b64": False, "crit": ["b64"]}
    header, _, signature = jwt.api_jws.encode(body, key, "RS256", headers).split(".")
    return f"{header}.{part(body)}.{signature}"


class From(NamedTuple):
    """Seconds from now, when the test runs."""

    now: int


HOSTILE: dict[str, str] = {
    "alg none": unsigned({"alg": "none"}),
    "alg None": unsigned({"alg": "None", "kid": "k1"}),
    "alg none with a signature": unsigned({"alg": "none", "kid": "k1"}, token().split(".")[2]),
    "no alg": unsigned({"kid": "k1"}),
    "alg a list": unsigned({"alg": ["RS256"], "kid": "k1"}),
    "alg an object": unsigned({"alg": {}, "kid": "k1"}),
    "HS256 with the public key": hmac_signed(public_pem()),
    "HS256 with the key set": hmac_signed(json.dumps(public_jwk("RS256")).encode()),
    "HS256 with nothing": hmac_signed(b""),
    "another key": forged(),
    "jku": forged(jku="https://evil.example/jwks"),
    "x5u": forged(x5u="https://evil.example/x5u"),
    "jwk": forged(jwk=public_jwk("RS256", "evil")),
    "x5c": forged(x5c=["MIIB"]),
    "crit": forged(crit=["exp"]),
    "crit that is known to nobody, well signed": signed(claims(), crit=["hurry"], hurry=True),
    "crit empty, well signed": signed(claims(), crit=[]),
    "b64 false, well signed": detached(),
    "b64 false without crit": unsigned({"alg": "RS256", "kid": "k1", "b64": False}),
    "no signature": token().rsplit(".", 1)[0] + ".",
    "half a signature": token()[:-100],
    "other claims": altered(token(), tenant="victim"),
    "kid a number": unsigned({"alg": "RS256", "kid": 1}, "AAAA"),
    "kid null": unsigned({"alg": "RS256", "kid": None}, "AAAA"),
    "the key of another algorithm": unsigned({"alg": "ES256", "kid": "k1"}, "AAAA"),
    "alg swapped": part({"alg": "RS512", "kid": "k1"}) + token()[token().index(".") :],
    "header a list": f"{part([])}.{part(claims())}.AAAA",
    "header deep": f"{part(b'[' * 3000)}.{part(claims())}.AAAA",
    "claims deep": f"{part({'alg': 'RS256', 'kid': 'k1'})}.{part(b'[' * 2000)}.AAAA",
    "claims a list": f"{part({'alg': 'RS256', 'kid': 'k1'})}.{part([])}.AAAA",
    "a large number": f"{part(b'{' + b'9' * 4000)}.{part(claims())}.AAAA",
    "not base64": "a!.b!.c!",
    "points only": "..",
    "nothing between": "a..b",
}
"""Tokens that nobody may use, whatever they say."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tokens_are_refused(known: Authenticator, name: str) -> None:
    assert refusal(known, HOSTILE[name]) in (RefusalReason.TOKEN, RefusalReason.UNKNOWN)


@pytest.mark.parametrize(
    ("kid", "algorithm"),
    [("../../etc/passwd", "RS256"), ("/dev/null", "ES256"), ("\0", "RS256"), ("x" * 1000, "RS256")],
)
def test_an_unknown_key_is_no_path(known: Authenticator, kid: str, algorithm: str) -> None:
    made = jwt.encode(claims(), private_key(algorithm, "evil"), algorithm, {"kid": kid})
    assert refusal(known, made) == RefusalReason.UNKNOWN


def test_five_parts_are_no_token(known: Authenticator) -> None:
    assert refusal(known, f"{token()}.AAAA.AAAA") == RefusalReason.UNKNOWN


def test_a_huge_token_is_not_looked_at(known: Authenticator) -> None:
    assert refusal(known, token(filler="x" * 8_000)) == RefusalReason.MALFORMED
    assert known.authenticated(token(filler="x" * 5_000)).tenant == "acme"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"exp": From(-120)}, RefusalReason.EXPIRED),
        ({"exp": None}, RefusalReason.CLAIM),
        ({"exp": "soon"}, RefusalReason.TOKEN),
        ({"exp": "1999999999"}, RefusalReason.CLAIM),
        ({"exp": True}, RefusalReason.EXPIRED),
        ({"exp": 10**400}, RefusalReason.CLAIM),
        ({"exp": float("inf")}, RefusalReason.TOKEN),
        ({"exp": float("nan")}, RefusalReason.TOKEN),
        ({"nbf": From(600)}, RefusalReason.TOKEN),
        ({"iat": From(600)}, RefusalReason.TOKEN),
        ({"aud": "another service"}, RefusalReason.AUDIENCE),
        ({"aud": ["another", "service"]}, RefusalReason.AUDIENCE),
        ({"aud": {"voxray": 1}}, RefusalReason.AUDIENCE),
        ({"aud": [["voxray"]]}, RefusalReason.AUDIENCE),
        ({"aud": "voxray2"}, RefusalReason.AUDIENCE),
        ({"aud": None}, RefusalReason.CLAIM),
        ({"aud": []}, RefusalReason.CLAIM),
        ({"iss": "https://evil.example/"}, RefusalReason.ISSUER),
        ({"iss": "https://id.example"}, RefusalReason.ISSUER),
        ({"iss": None}, RefusalReason.CLAIM),
        ({"sub": None}, RefusalReason.CLAIM),
        ({"sub": ""}, RefusalReason.CLAIM),
        ({"sub": 7}, RefusalReason.TOKEN),
        ({"sub": "\ud800"}, RefusalReason.CLAIM),
        ({"tenant": None}, RefusalReason.CLAIM),
        ({"tenant": ""}, RefusalReason.CLAIM),
        ({"tenant": "../other"}, RefusalReason.CLAIM),
        ({"tenant": ["acme"]}, RefusalReason.CLAIM),
        ({"tenant": "a" * 64}, RefusalReason.CLAIM),
        ({"tenant": "acme\n"}, RefusalReason.CLAIM),
    ],
    ids=str,
)
def test_claims_must_be_there_and_right(
    known: Authenticator, changed: dict[str, Any], why: RefusalReason
) -> None:
    assert refusal(known, timed(**changed)) == why


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("voxray:speak voxray:chat", (Scope.SPEAK, Scope.CHAT)),
        (["voxray:admin", "other:jobs", 7, None, ["voxray:jobs"]], (Scope.ADMIN,)),
        ("admin jobs", ()),
        ("voxray:*", ()),
        ("VOXRAY:ADMIN", ()),
        ("", ()),
        ([], ()),
        (7, ()),
        ({"voxray:admin": True}, ()),
        (None, ()),
    ],
    ids=str,
)
def test_scopes_are_those_of_the_claim_and_without_it_none(
    known: Authenticator, scope: Any, allowed: tuple[Scope, ...]
) -> None:
    assert known.authenticated(token(scope=scope)).scopes == frozenset(allowed)


def test_claims_have_the_names_that_are_configured(tmp_path: Path) -> None:
    names: dict[str, Any] = {"tenant_claim": "https://x.example/org", "scopes_claim": "permissions"}
    known = accepting(in_file(tmp_path, scope_prefix="", **names))
    made: dict[str, Any] = {
        "https://x.example/org": "umbrella",
        "permissions": list(ALL),
        "tenant": None,
    }
    caller = known.authenticated(token(**made))
    assert (caller.tenant, caller.scopes) == ("umbrella", ALL)


def test_the_leeway_is_for_clocks_that_differ(tmp_path: Path) -> None:
    lenient = accepting(in_file(tmp_path, leeway_s=60))
    assert lenient.authenticated(timed(exp=From(-20), nbf=From(20))).tenant == "acme"
    strict = accepting(in_file(tmp_path, leeway_s=0))
    assert refusal(strict, timed(exp=From(-20))) == RefusalReason.EXPIRED


@pytest.mark.parametrize(
    ("subject", "key"),
    [
        ("auth0|5f7c", "jwt:auth0|5f7c"),
        ("a" * 76, f"jwt:{'a' * 76}"),
        ("a" * 77, "jwt:sha256:"),
        ("Ann Other", "jwt:sha256:"),
        ("анна", "jwt:sha256:"),
    ],
)
def test_who_it_is_stands_where_a_key_has_its_id(
    known: Authenticator, subject: str, key: str
) -> None:
    found = known.authenticated(token(sub=subject)).key
    assert found.startswith(key) and len(found) <= 80


def test_what_is_remembered_expires_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = accepting(in_file(tmp_path, leeway_s=0))
    one = token(exp=int(time.time()) + 3)
    known.authenticated(one)
    later = time.time() + 4
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(LoginRefused) as refused:
        known.authenticated(one)
    assert (refused.value.reason, refused.value.key) == (RefusalReason.EXPIRED, "jwt:ann")


def test_a_token_is_checked_once_while_there_are_not_too_many(
    known: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_KNOWN", 2)
    checked: list[str] = []
    decode = jwt.decode

    def counted(made: str, *rest: Any, **more: Any) -> dict[str, Any]:
        checked.append(made)
        return decode(made, *rest, **more)

    monkeypatch.setattr(jwt, "decode", counted)
    a, b, c = (token(sub=name) for name in "abc")
    for made in (a, b, a, c, a, b):
        known.authenticated(made)
    assert checked == [a, b, c, b]


def test_a_valid_token_may_name_other_keys_which_nobody_fetches(tmp_path: Path) -> None:
    with provider() as elsewhere:
        known = accepting(in_file(tmp_path))
        headers: dict[str, Any] = {
            "jku": elsewhere.url,
            "x5u": elsewhere.url,
            "jwk": public_jwk("RS256", "evil"),
        }
        assert known.authenticated(signed(claims(), **headers)).tenant == "acme"
        refusal(known, forged(**headers))
        assert elsewhere.asked == []


def test_tokens_are_none_where_they_are_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", "a-key-of-our-own-0123")
    known = Authenticator(AuthConfig(), Database("sqlite+aiosqlite:///unused.db"))
    assert refusal(known, token()) == RefusalReason.UNKNOWN
    assert not known.still_valid("jwt:ann")


def test_what_a_token_has_made_is_valid_while_tokens_are(known: Authenticator) -> None:
    assert known.still_valid("jwt:ann")


def test_a_static_key_with_points_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", "a-key.of-our.own-0123")
    assert accepting(in_file(tmp_path)).authenticated("a-key.of-our.own-0123").scopes == ALL


@pytest.mark.parametrize("body", [b"[]", key_set(public_jwk("RS256", use="enc"))])
def test_a_file_without_keys_is_refused_at_the_start(tmp_path: Path, body: bytes) -> None:
    config = in_file(tmp_path, body)
    with pytest.raises(ValueError, match=r"auth\.jwt\.jwks: .*jwks\.json: it "):
        check_keys(AuthConfig(jwt=config))


def test_a_file_that_is_not_there_is_refused_at_the_start() -> None:
    config = JwtConfig(issuer="i", audience="a", jwks="/nowhere/jwks.json")
    with pytest.raises(ValueError, match="FileNotFoundError"):
        check_keys(AuthConfig(jwt=config))


def test_until_the_provider_has_answered_nobody_knows(tmp_path: Path) -> None:
    config = JwtConfig(issuer="i", audience="a", jwks="http://127.0.0.1:9/jwks")
    with pytest.raises(ClientError, match="have not been read yet") as refused:
        accepting(config).authenticated(token())
    assert (refused.value.code, refused.value.status) == ("auth_unavailable", 503)
    assert refused.value.retry_after_s
