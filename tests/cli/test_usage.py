"""`voxray usage`: a table or CSV of what the key may see."""

import csv
import io
import subprocess
from collections.abc import Callable, Iterator

import httpx2 as httpx
import pytest

from serve_app.client.key import VARIABLE
from serve_app.identity.principal import Scope
from tests.fakes import served
from tests.identity.keys import bearer, key_of, with_keys
from tests.server import voxray
from tests.usage.served import configured

Usage = Callable[..., subprocess.CompletedProcess[str]]

HELLO = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("usage"))
    with served(with_keys(config, "root", acme={Scope.CHAT}, bolt={Scope.CHAT})) as address:
        url = f"http://{address}"
        for tenant in ("acme", "bolt", "bolt"):
            chat = httpx.post(f"{url}/v1/chat/completions", json=HELLO, headers=bearer(tenant))
            assert chat.status_code == 200
        yield url


@pytest.fixture
def usage(server: str, monkeypatch: pytest.MonkeyPatch) -> Usage:
    def run(tenant: str, *words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv(VARIABLE, key_of(tenant))
        monkeypatch.setenv("COLUMNS", "200")
        return voxray("usage", "--server", server, *words)

    return run


def test_csv_for_an_admin_has_all_tenants(usage: Usage) -> None:
    rows = list(csv.DictReader(io.StringIO(usage("root", "--by", "tenant", "--csv").stdout)))
    assert [(it["tenant"], it["tokens"]) for it in rows if it["tenant"] != "root"] == [
        ("acme", "7"),
        ("bolt", "14"),
    ]


def test_a_table_shows_the_keys_own_tenant_and_says_what_is_left_out(usage: Usage) -> None:
    head, row = usage("acme", "--by", "tenant").stdout.splitlines()
    names = ["tenant", "audio", "characters", "tokens", "jobs", "requests", "stored"]
    assert head.split() == names
    assert row.split()[0] == "acme" and row.split()[4] == "7"
    assert "there are more rows" in usage("root", "--by", "tenant", "--limit", "1").stderr


def test_another_tenants_usage_is_refused(usage: Usage) -> None:
    refused = usage("acme", "--tenant", "bolt", "--json")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "its own tenant" in refused.stderr
