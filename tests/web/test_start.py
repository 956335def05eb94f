"""The first view, and what holds for the whole page."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from serve_app.config import Config, StorageConfig
from tests.browser import Browser, running
from tests.fakes import served
from tests.web.page import accessible, click, opened, text_of

pytestmark = pytest.mark.browser

WEB = Path(__file__).parents[2] / "serve_app/web"
VIEWS = ("start", "live", "recordings", "conversation", "voices", "server")
FIRST_LOAD_BYTES = 200_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage = StorageConfig(directory=str(tmp_path_factory.mktemp("storage")))
    with served(Config(profile="sim", storage=storage)) as address:
        yield address


def test_the_first_view_has_a_door_to_every_other(browser: Browser, address: str) -> None:
    with browser.tab() as tab:
        opened(tab, address)
        tab.until("return !!document.querySelector('#engines')")
        doors = tab.run("return [...document.querySelectorAll('.door')].map((it) => it.hash)")
        assert doors == [f"#/{name}" for name in VIEWS[1:]]
        assert "simulated" in text_of(tab, ".pairs"), "an engine is what it is"
        accessible(tab)
        assert tab.problems == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_stands_alone(browser: Browser, address: str, view: str) -> None:
    """Nothing comes from another host, and the policy of the page forbids nothing that it does."""
    with browser.tab() as tab:
        opened(tab, address, view)
        tab.until("return document.querySelector('nav a[aria-current=page]')?.hash")
        own = f"http://{address}/"
        loaded = tab.run("return performance.getEntriesByType('resource').map((it) => it.name)")
        assert loaded and [it for it in loaded if not it.startswith(own)] == []
        assert tab.problems == []


def test_the_keyboard_alone_reaches_the_content(browser: Browser, address: str) -> None:
    with browser.tab() as tab:
        opened(tab, address)
        for name in ("Tab", "Enter"):
            code = {"Tab": 9, "Enter": 13}[name]
            text = {"text": "\r"} if name == "Enter" else {}
            key = {"key": name, "windowsVirtualKeyCode": code, **text}
            tab.call("Input.dispatchKeyEvent", type="keyDown", **key)
            tab.call("Input.dispatchKeyEvent", type="keyUp", **key)
        tab.until("return document.activeElement.id == 'content'")


def test_a_sample_is_spoken_by_the_server(browser: Browser, address: str) -> None:
    with browser.tab() as tab:
        opened(tab, address)
        click(tab, "#make-sample")
        path = tab.until("return location.hash.startsWith('#/recordings/') && location.hash")
        job = httpx.get(f"http://{address}/v1/jobs/{path.rpartition('/')[2]}").json()
        assert job["file"]["name"] == "Sample recording.wav" and job["file"]["bytes"] > 10_000


def test_the_first_load_is_small() -> None:
    """All that any view loads, compressed: more than a first load."""
    files = [it for it in WEB.rglob("*") if it.suffix in (".js", ".css", ".html", ".svg")]
    needed = [it for it in files if not it.name.endswith(".d.ts")]
    assert sum(len(gzip.compress(it.read_bytes())) for it in needed) < FIRST_LOAD_BYTES


def test_only_one_file_fetches() -> None:
    fetching = [
        str(it.relative_to(WEB))
        for it in WEB.rglob("*.js")
        if not {"vendor", "snippets.js"} & {*it.parts}
        and re.search(r"\bfetch\(|XMLHttpRequest|EventSource", it.read_text())
    ]
    assert fetching == ["server/http.js"]
