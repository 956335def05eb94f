"""Who passes the gate, and what those are told who do not."""

import asyncio
import contextlib
import secrets
import time

import pytest

from serve_app.errors import ClientError
from serve_app.identity.gate import Arrival, Gate
from serve_app.identity.login_refused import RefusalReason
from serve_app.identity.origins import KnownOrigins
from serve_app.identity.principal import ALL, EVERYBODY, Principal, Scope
from serve_app.identity.routes import ROUTES, SOCKETS
from serve_app.security import client_secret
from serve_app.security.signing import SigningKeys
from tests.identity.keys import KnownKeys, bearer, key_of

KNOWN = KnownOrigins([], [])
SIGNING = SigningKeys([secrets.token_bytes(32)])


class Noted(list[tuple[RefusalReason, str, str]]):
    def note(self, reason: RefusalReason, address: str, key: str = "") -> None:
        self.append((reason, address, key))


def gate(keys: KnownKeys | None = None, noted: Noted | None = None) -> Gate:
    keys = keys or KnownKeys(acme=ALL, caption={Scope.TRANSCRIBE}, nothing=())
    return Gate(KNOWN, SIGNING, keys, noted)


def open_to_all() -> Gate:
    return Gate(KNOWN, SIGNING)


def code(gate: Gate, path: str, headers: dict[str, str], query: str = "") -> str:
    try:
        gate.caller(ROUTES[path], Arrival(headers, query))
    except ClientError as error:
        return error.code
    return ""


def secret(owner: Principal, scope: Scope = Scope.REALTIME, lifetime_s: int = 60) -> str:
    expires_at = int(time.time()) + lifetime_s
    return client_secret.mint(SIGNING, {}, expires_at, "n", owner, scope)


def shown(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


ACME = Principal("acme", "k-acme")


def test_a_key_brings_its_tenant() -> None:
    assert gate().caller(ROUTES["/v1/jobs"], Arrival(bearer("acme"))) == ACME


def test_without_an_authenticator_everybody_may_do_everything() -> None:
    for path in ROUTES:
        for headers in (shown("anything"), {"authorization": "Basic x"}, {}):
            assert open_to_all().caller(ROUTES[path], Arrival(headers, "api_key=x")) == EVERYBODY


@pytest.mark.parametrize(
    ("path", "headers", "refused"),
    [
        ("/v1/jobs", {}, "missing_api_key"),
        ("/v1/jobs", shown("key-unknown"), "invalid_api_key"),
        ("/v1/jobs", bearer("caption"), "missing_scope"),
        ("/v1/jobs", bearer("nothing"), "missing_scope"),
        ("/v1/models", bearer("nothing"), ""),
        ("/v1/transcribe", bearer("caption"), ""),
        ("/v1/realtime", bearer("caption"), ""),
        ("/ws", bearer("caption"), "missing_scope"),
        ("/config/update", bearer("caption"), "missing_scope"),
    ],
)
def test_a_key_opens_what_its_scopes_allow(
    path: str, headers: dict[str, str], refused: str
) -> None:
    assert code(gate(), path, headers) == refused


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(ClientError, match="the scope jobs; yours: transcribe") as refused:
        gate().caller(ROUTES["/v1/jobs"], Arrival(bearer("caption")))
    assert refused.value.status == 403
    assert refused.value.body()["error"]["type"] == "permission_error"


def test_s6_a_client_secret_has_one_scope_its_makers_tenant_and_opens_sockets_only() -> None:
    for scope, opens in (
        (Scope.REALTIME, {"/v1/realtime", "/ws"}),
        (Scope.TRANSCRIBE, {"/v1/realtime", "/v1/transcribe/stream"}),
    ):
        made = secret(ACME, scope)
        assert {path for path in ROUTES if not code(gate(), path, shown(made))} == opens
        caller = gate().caller(SOCKETS["/v1/realtime"], Arrival(shown(made)))
        assert caller == Principal("acme", "k-acme", frozenset({scope}))


def test_s6_a_client_secret_expires() -> None:
    assert code(gate(), "/ws", shown(secret(ACME, lifetime_s=-1))) == "invalid_api_key"


def test_s6_a_client_secret_dies_with_the_key_that_made_it() -> None:
    keys = KnownKeys(acme=ALL)
    here, made = gate(keys), secret(ACME)
    assert not code(here, "/ws", shown(made))
    del keys.keys[key_of("acme")]
    assert code(here, "/ws", shown(made)) == "invalid_api_key"


def test_s6_a_secret_made_while_no_key_was_needed_opens_nothing_later() -> None:
    assert not code(open_to_all(), "/ws", shown(secret(EVERYBODY)))
    assert code(gate(), "/ws", shown(secret(EVERYBODY))) == "invalid_api_key"


def test_s6_also_where_no_key_is_needed_a_secret_opens_sockets_only() -> None:
    made = shown(secret(EVERYBODY))
    assert code(open_to_all(), "/v1/jobs", made) == "invalid_api_key"
    assert code(open_to_all(), "/v1/transcribe/stream", made) == "missing_scope"
    assert code(open_to_all(), "/ws", shown("ek_forged")) == "invalid_api_key"


def test_refusals_are_noted_with_reason_and_address() -> None:
    noted = Noted()
    here, came = gate(noted=noted), Arrival({"x-forwarded-for": "192.0.2.7"}, peer="127.0.0.1")
    for headers in ({}, {"authorization": "Basic x"}, shown("unknown"), bearer("nothing")):
        with pytest.raises(ClientError):
            here.caller(ROUTES["/v1/jobs"], came._replace(headers={**came.headers, **headers}))
    here.caller(ROUTES["/v1/jobs"], Arrival(bearer("acme")))
    reasons = [RefusalReason.MISSING, RefusalReason.MALFORMED]
    reasons += [RefusalReason.UNKNOWN, RefusalReason.SCOPE]
    assert noted == [(reason, "192.0.2.7", "") for reason in reasons]


def test_a_key_that_is_not_known_yet_is_looked_for_once() -> None:
    keys = KnownKeys(acme=ALL)
    here = gate(keys)

    async def ask(headers: dict[str, str]) -> None:
        await here.admitted(ROUTES["/v1/jobs"], Arrival(headers))

    for headers, refreshes in (
        (bearer("acme"), 0),
        ({}, 0),
        ({"authorization": "Basic x"}, 0),
        (shown("unknown"), 1),
    ):
        with contextlib.suppress(ClientError):
            asyncio.run(ask(headers))
        assert keys.refreshes == refreshes
