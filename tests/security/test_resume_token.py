"""Resume tokens: a session comes back as it was, and nothing that was not signed here opens it."""

from typing import Any

import jwt
import pytest

from serve_app.errors import ClientError
from serve_app.identity.principal import EVERYBODY, Scope
from serve_app.live.resume_point import ResumePoint
from serve_app.security import client_secret
from serve_app.security.resume_token import Continued, ResumeTokens, packed, unpacked
from serve_app.security.signing import SigningKeys

OLD, NEW = b"o" * 32, b"n" * 32
SESSION = Continued("mine", "0123", 3, 1_000, packed({"sample_rate": 8000}))
POINT = ResumePoint(16_000, 8_000, True, 4, 16_000, 16_000, 12_000, 7, 1)


def tokens(keys: list[bytes] = [NEW], tenant: str = "acme", now: float = 0.0) -> ResumeTokens:  # noqa: B006
    return ResumeTokens(SigningKeys(keys), tenant, 300.0, lambda: now)


TOKEN = tokens().mint(SESSION, POINT)


def test_what_was_signed_comes_back() -> None:
    assert tokens(now=299.0).opened(TOKEN) == (SESSION, POINT)
    assert unpacked(SESSION.start) == {"sample_rate": 8000} and unpacked(packed({})) == {}


def test_a_new_key_signs_and_the_old_one_still_verifies() -> None:
    old = tokens([OLD]).mint(SESSION, POINT)
    rotated = tokens([NEW, OLD])
    assert rotated.opened(old) == rotated.opened(TOKEN) == (SESSION, POINT)
    assert tokens([NEW]).opened(rotated.mint(SESSION, POINT))


def resigned(**changed: Any) -> str:
    claims = jwt.decode(TOKEN, options={"verify_signature": False}) | changed
    headers = {"kid": jwt.get_unverified_header(TOKEN)["kid"]}
    return jwt.encode(claims, NEW, "HS256", headers)


SECRET = client_secret.mint(
    SigningKeys([NEW]), {}, 300, "n", EVERYBODY, Scope.REALTIME
).removeprefix("ek_")


@pytest.mark.parametrize(
    ("token", "opens"),
    [
        (TOKEN, {"now": 300.0}),
        (TOKEN, {"tenant": "other"}),
        (TOKEN, {"keys": [OLD]}),
        (TOKEN[:-2], {}),
        (SECRET, {}),
        (resigned(aud="voxray/other"), {}),
        (resigned(iss="somebody"), {}),
        (resigned(point=5), {}),
        (resigned(session=["too", "few"]), {}),
        (resigned(tenant=None), {}),
        ("", {}),
        (None, {}),
        (["x"], {}),
        ("A" * 70_000, {}),
    ],
)
def test_nothing_else_opens(token: Any, opens: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        tokens(**opens).opened(token)
    assert refused.value.code == "resume_refused" and refused.value.close is None


def test_a_resume_token_is_no_client_secret() -> None:
    with pytest.raises(ClientError):
        client_secret.opened(SigningKeys([NEW]), "ek_" + TOKEN, 1.0)
