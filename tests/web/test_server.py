"""The server's view, and the page of a server with keys."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.identity.principal import Scope
from serve_app.observability import history
from tests.browser import Browser, Tab, microphone, running
from tests.fakes import served
from tests.identity.keys import key_of, keyed, with_keys
from tests.waiting import wait_for
from tests.web.page import accessible, click, opened, text_of, typed

pytestmark = pytest.mark.browser

ADMIN = "an-admin-of-the-environment-0123456789"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    silence = tmp_path_factory.mktemp("silence") / "silence.wav"
    silence.write_bytes(wav(bytes(32_000 * 60)))
    with running(*microphone(silence)) as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as tab:
        yield tab


def entered(tab: Tab, key: str) -> None:
    tab.until("return !!document.querySelector('[name=key]')")
    typed(tab, "[name=key]", key)
    click(tab, "form .primary")


def views(tab: Tab) -> list[str]:
    found: list[str] = tab.run(
        "return [...document.querySelectorAll('.top nav a')].map((it) => it.hash)"
    )
    return found


def test_it_shows_how_the_server_is(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "INTERVAL_S", 1)
    links = {"Grafana <b>": "https://grafana.example/"}
    config = Config.model_validate({"profile": "sim", "browser": {"links": links}})
    with served(config) as address:
        wait_for(
            lambda: httpx.get(f"http://{address}/v1/metrics/history").json()["samples"][2:], 20
        )
        opened(tab, address, "server")
        tab.until("return document.querySelectorAll('.chart canvas').length >= 5")
        tab.until("return document.querySelector('key-list').innerText.includes('own making')")
        text = text_of(tab, "main")
        assert "healthy" in text and "sim" in text and "Grafana <b>" in text
        rows = "document.querySelectorAll('time-chart tbody tr').length"
        assert tab.run(f"return {rows}") >= 5, "each chart has a table"
        accessible(tab)
        assert [it for it in tab.problems if "409" not in it] == []


def test_a_key_opens_the_page_and_scopes_decide_what_is_in_it(tab: Tab, tmp_path: Path) -> None:
    config = with_keys(
        Config.model_validate({"profile": "sim", "storage": {"directory": str(tmp_path)}}),
        "acme",
        bolt={Scope.JOBS, Scope.TRANSCRIBE},
    )
    with served(config) as address:
        tab.open(f"http://{address}/")
        tab.until("return !!document.querySelector('[name=key]')")
        accessible(tab)
        entered(tab, "a-wrong-key-0123456789")
        tab.until("return document.querySelector('.notice')?.innerText.includes('not valid')")
        entered(tab, key_of("bolt"))
        tab.until("return document.querySelectorAll('.top nav a').length")
        assert views(tab) == ["#/start", "#/live", "#/recordings"]
        assert tab.run("return document.cookie") == "", "no script reads it"
        stored = tab.run("return JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert key_of("bolt") not in stored and key_of("bolt") not in tab.run(
            "return location.href"
        )
        tab.run("location.reload()")
        tab.until("return document.querySelectorAll('.top nav a').length")
        click(tab, ".top button")
        entered(tab, key_of("acme"))
        tab.until("return document.querySelectorAll('.top nav a').length == 6")


def test_words_stay_when_the_key_is_revoked_in_the_middle(tab: Tab, tmp_path: Path) -> None:
    config = with_keys(
        Config.model_validate({"profile": "sim", "storage": {"directory": str(tmp_path)}}), "acme"
    )
    with served(config) as address:
        tab.open(f"http://{address}/#/live")
        entered(tab, key_of("acme"))
        click(tab, "#begin")
        tab.until("return document.querySelector('.state')?.dataset.state == 'live'")
        tab.run(
            """const {session} = document.querySelector('live-view');
            session.captions.take({type: 'final', start_ms: 0, end_ms: 1, text: 'kept', words: []});
            document.querySelector('live-view').requestUpdate();"""
        )
        keyed(tmp_path, bolt={Scope.JOBS})
        tab.until("return document.querySelector('.state').dataset.state == 'over'", 60)
        tab.until("return !!document.querySelector('[name=key]')")
        assert text_of(tab, ".captions .final") == "kept"


def test_keys_are_made_and_revoked(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", base64.b64encode(bytes(range(32))).decode())
    monkeypatch.setenv("VOXRAY_API_KEY", ADMIN)
    args = {"profile": "sim", "storage": {"directory": str(tmp_path)}, "auth": {"mode": "keys"}}
    with served(Config.model_validate(args)) as address:
        tab.open(f"http://{address}/#/server")
        entered(tab, ADMIN)
        tab.until("return !!document.querySelector('#new-key')")
        typed(tab, "#new-key [name=name]", "night <b>shift")
        click(tab, "#new-key button")
        secret = tab.until("return document.querySelector('.secret')?.innerText")
        assert secret.startswith("vx_")
        accessible(tab)
        bearer = {"Authorization": f"Bearer {secret}"}
        url = f"http://{address}/v1/jobs"
        wait_for(lambda: httpx.get(url, headers=bearer).status_code == 200, 30)
        assert "night <b>shift" in text_of(tab, "#key-table")
        click(tab, "#key-table [data-key]")
        click(tab, "#key-table [data-sure]")
        tab.until("return document.querySelector('#key-table').innerText.includes('revoked')")
        wait_for(lambda: httpx.get(url, headers=bearer).status_code == 401, 30)
