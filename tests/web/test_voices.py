"""Voices in a browser: heard while they come, compared blindly, taken into programs."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.speaker.sim import SimSpeaker
from tests.browser import Browser, Tab, running
from tests.fakes import models, served
from tests.web.page import accessible, click, opened, text_of, typed

pytestmark = pytest.mark.browser

HOSTILE = "It's <img src=x onerror=document.title='hacked'> \"quoted\" $HOME `date`"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(given=models(speaker_engine=SimSpeaker(5, 100.0, 50.0))) as address:
        yield address


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Tab]:
    with browser.tab() as tab:
        opened(tab, address, "voices")
        tab.until("return !!document.querySelector('#speak button')")
        yield tab


def test_speech_is_heard_while_it_comes(tab: Tab) -> None:
    accessible(tab)
    typed(tab, "#text", "Hello there.")
    click(tab, "#speak button")
    tab.until("return document.querySelector('#speak').innerText.includes('First sound after')", 30)
    tab.until("return document.querySelector('#speak button').innerText == 'Speak'", 30)
    assert tab.problems == []


def test_stop_stops_it(tab: Tab) -> None:
    typed(tab, "#text", "A sentence that is long. " * 20)
    click(tab, "#speak button")
    tab.until("return document.querySelector('#speak button').innerText == 'Stop'", 30)
    click(tab, "#speak button")
    tab.until("return document.querySelector('#speak button').innerText == 'Speak'")
    assert text_of(tab, ".notice") == ""


def test_two_voices_are_compared_blindly(tab: Tab) -> None:
    if not tab.run("return !!document.querySelector('#compare')"):
        pytest.fail("the engine has only one voice")
    typed(tab, "#text", "Hello.")
    click(tab, "#compare")
    tab.until("return !!document.querySelector('#play-0 button')")
    assert tab.run("return document.querySelector('#vote-0').disabled"), "both are heard first"
    for i in range(2):
        click(tab, f"#play-{i} button")
        tab.until(f"return document.querySelector('voices-view').heard.size == {i + 1}", 30)
    accessible(tab)
    click(tab, "#vote-1")
    tab.until("return document.querySelectorAll('#votes tbody tr').length == 2")
    won = tab.run("return [...document.querySelectorAll('#votes td')].map((it) => it.innerText)")
    assert sorted(won) == ["0", "1", "1", "1"]
    assert tab.problems == []


def test_the_curl_that_is_copied_works(tab: Tab, tmp_path: Path) -> None:
    typed(tab, "#text", HOSTILE)
    tab.run(
        "const it = document.querySelector('#format'); it.value = 'wav'; it.dispatchEvent(new Event('change'))"
    )
    command = tab.until("return document.querySelector('[data-code=curl]').textContent")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "speech.wav").read_bytes()[:4] == b"RIFF"
    for name in ("Python", "JavaScript"):
        code = tab.run(f"return document.querySelector('[data-code={name}]').textContent")
        assert json.dumps(HOSTILE)[1:-1] in code or HOSTILE in code
    assert tab.run("return document.title") == "Voices – voxray"


def test_a_copied_program_has_the_key_of_the_environment(tab: Tab) -> None:
    code = tab.run(
        """const {curl, python, javascript} = await import('/web/voices/snippets.js');
        const wanted = {input: 'a', response_format: 'mp3', style: 'calm'};
        return [curl, python, javascript].map((make) => make('http://x/', wanted, true));"""
    )
    assert all("VOXRAY_API_KEY" in it for it in code)
    assert all("calm" in it for it in code), "no setting is lost"
    compile(code[1], "snippet", "exec")


def test_speech_is_downloaded(browser: Browser, address: str, tmp_path: Path) -> None:
    with browser.tab() as tab:
        tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        opened(tab, address, "voices")
        click(tab, "#download")
        tab.until("return document.querySelector('#download').innerText == 'Download'")
        assert text_of(tab, ".notice") == ""
        for _ in range(100):
            if os.listdir(tmp_path):
                break
            tab.run("await new Promise((done) => setTimeout(done, 50))")
        assert any(name.startswith("speech.mp3") for name in os.listdir(tmp_path))


def test_a_download_that_failed_is_tried_again_as_it_was(tab: Tab) -> None:
    tab.run(
        "const it = document.querySelector('#format'); it.value = 'wav'; it.dispatchEvent(new Event('change'))"
    )
    tab.run(
        """const real = window.fetch; window.asked = [];
        window.fetch = (url, options) => {
          asked.push(options?.body ?? null);
          return asked.length == 1 ? Promise.reject(new TypeError('offline')) : real(url, options);
        };"""
    )
    click(tab, "#download")
    click(tab, ".notice button")
    tab.until("return asked.length == 2 && !document.querySelector('.notice[role=alert]')")
    first, second = tab.run("return asked.map((it) => JSON.parse(it))")
    assert first == second and first["response_format"] == "wav"
