"""Recordings in a browser: from a dropped file to corrected words, and everything that can go wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from tests.browser import Browser, Tab, running
from tests.fakes import FakeTranscriber, LocalReplicaSet
from tests.jobs import test_jobs as jobs
from tests.jobs.test_jobs import ENDED, Client, config
from tests.waiting import wait_for
from tests.web.page import accessible, click, give, opened, text_of, typed

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='hacked'>"
SAYS = f"one two {HOSTILE} four five six seven eight nine ten eleven twelve"


class Steady(FakeTranscriber):
    """Two words a second."""

    def __init__(self) -> None:
        super().__init__(SAYS)
        self.words = tuple(
            word._replace(start=n * 8_000, end=n * 8_000 + 6_000)
            for n, word in enumerate(self.words)
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    says = LocalReplicaSet(sim=Steady())
    with jobs.running(config(tmp_path_factory.mktemp("storage")), transcriber=says) as client:
        yield client


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as tab:
        yield tab


def address(client: Client) -> str:
    return client.url.removeprefix("http://")


def completed(client: Client, talk: bytes, name: str = "talk.wav") -> str:
    id_: str = client.submit(wav(talk), name).json()["id"]
    assert client.until(id_, *ENDED)["state"] == "completed"
    return id_


def listed(tab: Tab) -> dict[str, str]:
    """Names and states."""
    found: dict[str, str] = tab.run(
        """return Object.fromEntries([...document.querySelectorAll('.recording')].map((it) =>
          [it.querySelector('.name').innerText, it.dataset.state]));"""
    )
    return found


def shown(tab: Tab, client: Client, id_: str) -> Tab:
    opened(tab, address(client), f"recordings/{id_}")
    tab.until("return !!document.querySelector('.transcript .text')")
    return tab


def texts(tab: Tab) -> list[str]:
    found: list[str] = tab.run(
        "return [...document.querySelectorAll('.transcript .text')].map((it) => it.textContent.trim())"
    )
    return found


def reloaded(tab: Tab) -> None:
    tab.run("window.isOld = true; setTimeout(() => location.reload())")
    tab.until("return !window.isOld && document.readyState == 'complete'")


def edited(tab: Tab, text: str) -> None:
    """The first segment."""
    click(tab, ".transcript .edit")
    tab.until("return document.activeElement.localName == 'textarea'")
    typed(tab, ".editor textarea", text)
    click(tab, ".editor .primary")


def test_from_a_file_to_subtitles(tab: Tab, client: Client, talk: bytes, tmp_path: Path) -> None:
    file = tmp_path / "<b>böard<b>.wav"
    file.write_bytes(wav(talk))
    opened(tab, address(client), "recordings")
    accessible(tab)
    give(tab, "#files", file)
    tab.until(f"return document.body.innerText.includes({json.dumps(file.name)})")
    wait_for(lambda: listed(tab).get(file.name) == "completed", 60)
    accessible(tab)
    click(tab, ".recording .name")
    tab.until("return !!document.querySelector('.transcript .text')")
    assert HOSTILE in texts(tab)[0], "what was said is text"
    assert tab.run("return document.title") == "Recordings – voxray"
    link = tab.run("return document.querySelector('a[href$=\"/export/srt\"]').href")
    assert "-->" in httpx.get(link).text
    accessible(tab)
    assert tab.problems == []


def test_the_transcript_follows_the_player(tab: Tab, client: Client, talk: bytes) -> None:
    id_ = completed(client, talk)
    shown(tab, client, id_)
    tab.until("return document.querySelector('one-recording').player.readyState > 0")
    length = tab.run("return document.querySelector('one-recording').player.duration")
    assert length == pytest.approx(len(talk) / 32_000, abs=0.01)
    click(tab, ".transcript li:nth-of-type(2) .time")
    second = client.get(f"/v1/jobs/{id_}/result").json()["aligned_segments"][1]
    now = "document.querySelector('one-recording').player.currentTime"
    assert tab.run(f"return {now}") == pytest.approx(second["start_ms"] / 1000, abs=0.2)
    click(tab, "#play")
    tab.until("return document.querySelector('.transcript li.active')?.dataset.segment == '1'")
    tab.until("return CSS.highlights.get('spoken')?.size == 1")
    for key, code in ((" ", 32), ("ArrowLeft", 37), (">", 190)):
        tab.run("document.activeElement.blur()")
        text = {"text": key} if len(key) == 1 else {}
        pressed = {"key": key, "windowsVirtualKeyCode": code, **text}
        tab.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        tab.call("Input.dispatchKeyEvent", type="keyUp", **pressed)
    assert tab.run("return document.querySelector('one-recording').player.paused")
    assert tab.run("return document.querySelector('one-recording').player.playbackRate") == 1.25
    tab.run(f"location.hash = '#/recordings/{id_}/2.5'")
    tab.until(f"return Math.abs({now} - 2.5) < 0.2")
    assert tab.problems == []


def test_words_are_corrected_undone_and_kept(tab: Tab, client: Client, talk: bytes) -> None:
    id_ = completed(client, talk)
    shown(tab, client, id_)
    before = texts(tab)
    edited(tab, "these are better words")
    tab.until("return document.querySelector('.transcript .text').innerText.includes('better')")
    reloaded(tab)
    tab.until("return document.querySelector('.transcript .text')?.innerText.includes('better')")
    accessible(tab)
    click(tab, "#undo")
    wait_for(lambda: texts(tab) == before)
    click(tab, "#redo")
    wait_for(lambda: texts(tab)[:1] == ["these are better words"])
    typed(tab, "[data-speaker] input", "Anna")
    click(tab, "[data-speaker] button")
    tab.until("return document.querySelector('.transcript .speaker').innerText == 'Anna'")
    assert "Anna: these are better words" in client.get(f"/v1/jobs/{id_}/export/txt").text
    assert tab.problems == []


def test_segments_are_split_and_joined(tab: Tab, client: Client, talk: bytes) -> None:
    shown(tab, client, completed(client, talk))
    edited(tab, "alpha beta gamma")
    wait_for(lambda: texts(tab)[:1] == ["alpha beta gamma"])
    count = len(texts(tab))
    click(tab, ".transcript .edit")
    tab.until("return document.activeElement.localName == 'textarea'")
    accessible(tab)
    tab.run(
        "const it = document.querySelector('.editor textarea'); it.focus(); it.setSelectionRange(6, 6)"
    )
    tab.run("document.querySelector('.editor .split').click()")
    wait_for(lambda: texts(tab)[:2] == ["alpha", "beta gamma"])
    click(tab, ".transcript .edit")
    click(tab, ".editor .merge")
    wait_for(lambda: texts(tab)[:1] == ["alpha beta gamma"] and len(texts(tab)) == count)
    assert tab.problems == []


def test_two_who_edit_see_the_conflict_and_lose_nothing(
    browser: Browser, client: Client, talk: bytes
) -> None:
    id_ = completed(client, talk)
    with browser.tab() as mine, browser.tab() as theirs:
        shown(mine, client, id_)
        shown(theirs, client, id_)
        click(mine, ".transcript .edit")
        typed(mine, ".editor textarea", "my words")
        edited(theirs, "their words")
        wait_for(lambda: texts(theirs)[:1] == ["their words"])
        mine.until("return !!document.querySelector('#conflict')", 30)
        assert mine.run("return document.querySelector('.editor textarea').value") == "my words"
        accessible(mine)
        click(mine, ".editor .primary")
        wait_for(lambda: texts(mine)[:1] == ["my words"])
        wait_for(lambda: texts(theirs)[:1] == ["my words"], 30)


def test_what_was_typed_survives_a_reload(tab: Tab, client: Client, talk: bytes) -> None:
    shown(tab, client, completed(client, talk))
    click(tab, ".transcript .edit")
    typed(tab, ".editor textarea", "not saved yet")
    reloaded(tab)
    tab.until("return document.querySelector('.editor textarea')?.value == 'not saved yet'")


def test_an_upload_goes_on_after_the_connection_broke(
    tab: Tab, client: Client, talk: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(wav(jobs.long(talk, 400)))
    opened(tab, address(client), "recordings")
    slow = {"latency": 20, "downloadThroughput": -1, "uploadThroughput": 3_000_000}
    tab.call("Network.emulateNetworkConditions", offline=False, **slow)
    give(tab, "#files", file)
    tab.until("return document.querySelector('.upload progress')?.value > 0", 60)
    tab.call("Network.emulateNetworkConditions", offline=True, **slow)
    tab.until("return document.querySelector('.upload')?.dataset.state == 'retrying'", 60)
    tab.call(
        "Network.emulateNetworkConditions",
        offline=False,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    wait_for(lambda: listed(tab).get("long.wav"), 60)
    (job,) = [
        it for it in client.get("/v1/jobs").json()["data"] if it["file"]["name"] == "long.wav"
    ]
    original = client.get(f"/v1/jobs/{job['id']}/audio?original=true").content
    assert original == file.read_bytes()


def test_a_file_without_sound_is_explained(tab: Tab, client: Client, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("no sound in it")
    opened(tab, address(client), "recordings")
    give(tab, "#files", tmp_path / "letter.txt")
    tab.until("return document.querySelector('.upload')?.dataset.state == 'failed'", 30)
    assert "not a recording" in text_of(tab, ".upload")


def test_a_deletion_can_be_undone(tab: Tab, client: Client, talk: bytes) -> None:
    id_ = completed(client, talk, "undone.wav")
    opened(tab, address(client), "recordings")
    row = f"[data-id={id_}]"
    click(tab, f"{row} .delete")
    tab.until(f"return !document.querySelector('{row}')")
    click(tab, ".toast button")
    tab.until(f"return !!document.querySelector('{row}')")
    click(tab, f"{row} .delete")
    tab.until(f"return !document.querySelector('{row}')")
    tab.run("location.hash = '#/start'")
    wait_for(lambda: client.get(f"/v1/jobs/{id_}").status_code == 404)


def test_words_are_searched(tab: Tab, client: Client, talk: bytes) -> None:
    id_ = completed(client, talk, "searched.wav")
    opened(tab, address(client), "recordings")
    typed(tab, "#search", "searched")
    tab.until("return document.querySelectorAll('.recording').length == 1")
    typed(tab, "#search", "onerror four")
    wait_for(lambda: httpx.get(f"{client.url}/v1/jobs", params={"q": "onerror"}).json()["data"])
    tab.until(f"return !!document.querySelector('[data-id={id_}] mark')")
    assert HOSTILE in text_of(tab, f"[data-id={id_}] .passage")
    accessible(tab)
    assert tab.problems == []


def test_a_hundred_recordings_are_no_burden(tab: Tab, client: Client, talk: bytes) -> None:
    some = wav(talk[:32_000])
    for n in range(100):
        client.submit(some, f"number {n}.wav")
    opened(tab, address(client), "recordings")
    tab.until("return document.querySelectorAll('.recording').length == 100", 30)
    tab.run(
        """window.longest = 0;
        new PerformanceObserver((list) => {
          for (const it of list.getEntries()) longest = Math.max(longest, it.duration);
        }).observe({type: 'longtask'});"""
    )
    tab.run("scrollTo({top: document.body.scrollHeight})")
    tab.run("await new Promise((done) => setTimeout(done, 2000))")
    assert tab.run("return longest") < 200
    for job in client.get("/v1/jobs?limit=100").json()["data"]:
        httpx.delete(f"{client.url}/v1/jobs/{job['id']}")


MANY = 5_000


def test_five_thousand_segments_stay_smooth(
    tab: Tab, client: Client, talk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    id_ = completed(client, talk)
    big: dict[str, Any] = client.get(f"/v1/jobs/{id_}/result").json()
    big["aligned_segments"] = [segment(n) for n in range(MANY)]
    big["duration_ms"] = MANY * 2_000
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"""const ask = window.fetch;
        window.fetch = (url, options) => String(url).endsWith('/result')
          ? Promise.resolve(new Response({json.dumps(json.dumps(big))}, {{headers: {{ETag: '"x"'}}}}))
          : ask(url, options);""",
    )
    shown(tab, client, id_)
    tab.until(f"return document.querySelectorAll('.transcript li').length == {MANY}", 60)
    assert tab.run(f"return find('the last of {MANY - 1} words')"), "find-in-page reaches the end"
    tab.run(
        """Object.assign(window, {frame: 0, script: 0});
        new PerformanceObserver((list) => {
          for (const it of list.getEntries()) {
            frame = Math.max(frame, it.duration);
            script = Math.max(script, ...it.scripts.map((one) => one.duration));
          }
        }).observe({type: 'long-animation-frame'});
        await document.querySelector('one-recording').player.play();"""
    )
    tab.until("return CSS.highlights.get('spoken')?.size == 1")
    tab.run("await new Promise((done) => setTimeout(done, 3000))")
    assert tab.run("return document.querySelectorAll('.transcript li.active').length") == 1
    print(f"longest frame while playing: {tab.run('return frame'):.0f} ms")
    assert tab.run("return script") < 50, "the rest is drawing, without a GPU and beside others"


def segment(n: int) -> dict[str, Any]:
    words = f"the last of {n} words".split()
    start = n * 2_000
    timed = [
        {
            "word": word,
            "start_ms": start + i * 300,
            "end_ms": start + i * 300 + 250,
            "confidence": 0.4 if i == 2 else 0.9,
            "speaker": "AB"[n % 2],
        }
        for i, word in enumerate(words)
    ]
    fields = {"id": n, "start_ms": start, "end_ms": start + 1_900, "text": " ".join(words)}
    return {**fields, "confidence": 0.8, "speaker": "AB"[n % 2], "words": timed}
