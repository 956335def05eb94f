"""S3: whose something is, and how far it is, never comes from a body: every route that takes one."""

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.live.options import NEVER_GIVEN
from tests.fakes import served
from tests.identity.walk import application, routes_of
from tests.usage.served import configured

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/audio/speech": {"input": "Hello"},
    "/v1/realtime/client_secrets": {"session": {"type": "realtime"}},
    "/config/update": {"limits": {"max_sessions": 100}},
    "/api/transcribe/start": {"language": "en"},
}
"""Of routes that take JSON; all others take a form with a recording."""

UNREAD = {
    "/v1/webhooks/{id}/retry": "no body",
    "/v1/audio/translations": "always refused",
    "/transcribe/stream": "samples",
    "/v1/sign_in": "a key, and nothing else",
    "/v1/keys": "an order of an admin, who may name a tenant",
    "/v1/jobs/{id}/result": "edits, and nothing else",
    "/v1/uploads": "no body; what its metadata may say is what options may be",
    "/v1/uploads/{id}": "bytes of a recording",
}
WITH_SECTIONS = ("/config/update",)
"""Its error is that the value is no section."""

TAKING = [
    found
    for found in routes_of(application())
    if found.method in ("POST", "PUT", "PATCH") and found.path not in UNREAD
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        served(configured(tmp_path_factory.mktemp("bodies"))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=30) as client,
    ):
        yield client


def test_every_route_with_json_is_known() -> None:
    assert {it.path for it in TAKING if it.route.body_field} == set(BODIES)


@pytest.mark.parametrize("found", TAKING, ids=lambda it: it.path)
def test_a_body_cannot_say_them(client: httpx.Client, found: Any, speech: bytes) -> None:
    plain = BODIES.get(found.path)
    if plain:
        accepted = client.request(found.method, found.path, json=plain)
        assert accepted.status_code < 300, accepted.text
    for name in sorted(NEVER_GIVEN):
        body: dict[str, Any] = (
            {"json": {**plain, name: "acme"}}
            if plain
            else {"data": {name: "acme"}, "files": {"file": ("a.wav", wav(speech))}}
        )
        refused = client.request(found.method, found.path, **body)
        assert refused.status_code == 400, refused.text
        assert name in refused.text or found.path in WITH_SECTIONS, refused.text
