"""S6: client secrets are made at a limited rate, each key on its own."""

import httpx2 as httpx
import pytest

from serve_app.config import Config, Limits
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.security import minting
from serve_app.security.minting import Minting
from tests.fakes import served

ACME, BOLT = Principal("acme", "one"), Principal("bolt", "two")


def test_s6_a_key_makes_so_many_a_minute() -> None:
    now = 0.0
    made = Minting(3, lambda: now)
    for _ in range(3):
        made.count(ACME)
    with pytest.raises(ClientError) as refused:
        made.count(ACME)
    assert refused.value.code == "rate_limit_exceeded"
    made.count(BOLT)
    now += float(refused.value.retry_after_s or 0)
    made.count(ACME)


def test_s6_many_keys_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minting, "MOST_KEYS", 2)
    made = Minting(1, lambda: 0.0)
    for number in range(3):
        made.count(Principal("acme", str(number)))
    assert len(made._windows) == 2
    with pytest.raises(ClientError):
        made.count(Principal("acme", "2"))


def test_s6_a_flood_of_them_is_refused() -> None:
    limits = Limits(client_secrets_per_minute=5)
    with served(Config(profile="sim", limits=limits)) as address:
        url = f"http://{address}/v1/realtime/client_secrets"
        answers = [httpx.post(url, json={}) for _ in range(7)]
    assert [it.status_code for it in answers] == [200] * 5 + [429] * 2
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answers[-1].headers["retry-after"]) >= 1
