"""Live captions in a browser: a microphone that plays a file, and everything that can go wrong."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from deployments.interfaces import Option
from loadtest.speech import wav
from serve_app.config import Config, Limits, StorageConfig
from tests.browser import Browser, Tab, microphone, running
from tests.fakes import FakeTranscriber, LocalReplicaSet, models, served
from tests.web.page import accessible, click, give, opened, text_of, typed

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='hacked'>"
SAYS = f"hello {HOSTILE} world"
SENTENCES = 4


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, talk: bytes) -> Iterator[Browser]:
    file = tmp_path_factory.mktemp("microphone") / "talk.wav"
    file.write_bytes(wav(talk))
    with running(*microphone(file)) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage = StorageConfig(directory=str(tmp_path_factory.mktemp("storage")))
    says = LocalReplicaSet(sim=FakeTranscriber(SAYS))
    knows = {"transcriber": frozenset({Option.LANGUAGE, Option.HOTWORDS})}
    there = models(transcriber=says, options=knows)
    with served(Config(profile="sim", storage=storage), there) as address:
        yield address


WATCHED = """
  const ask = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  window.streams = [];
  if (ask) navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    streams.push(stream);
    return stream;
  };
  window.sockets = [];
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  };
"""


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCHED)
        yield tab


def begun(tab: Tab) -> Tab:
    click(tab, "#begin")
    tab.until("return document.querySelector('.state').dataset.state == 'live'")
    return tab


def stopped(tab: Tab) -> None:
    click(tab, "#stop")
    tab.until("return document.querySelector('.state').dataset.state == 'over'", 30)


def finals(tab: Tab) -> list[str]:
    said: list[str] = tab.run(
        "return [...document.querySelectorAll('.captions .final')].map((it) => it.innerText)"
    )
    return said


def await_finals(tab: Tab, count: int) -> None:
    tab.until(f"return document.querySelectorAll('.captions .final').length >= {count}", 60)


def problem(tab: Tab) -> str:
    code: str = tab.until("return document.querySelector('.notice[role=alert]')?.dataset.code")
    return code


def test_from_the_first_word_to_subtitles(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    assert tab.run("return streams.length") == 0, "no prompt before a click"
    accessible(tab)
    begun(tab)
    await_finals(tab, SENTENCES)
    assert text_of(tab, "#lag").endswith(" ms")
    stopped(tab)
    assert finals(tab) == [SAYS] * SENTENCES
    assert tab.run("return document.title") == "Live – voxray", "a transcript is text"
    ended = "streams.every((it) => it.getTracks().every((track) => track.readyState == 'ended'))"
    assert tab.run(f"return {ended}"), "the microphone is off"
    vtt = tab.run("return document.querySelector('live-view').session.captions.as('vtt')")
    assert vtt.startswith("WEBVTT\n\n00:00:") and "&lt;img" in vtt
    srt = tab.run("return document.querySelector('live-view').session.captions.as('srt')")
    assert srt.startswith("1\n00:00:0") and srt.count("-->") == SENTENCES
    click(tab, "#shade")
    tab.until("return !!document.querySelector('.final .doubtful')")
    accessible(tab)
    assert tab.problems == []


def test_no_word_is_lost_or_doubled_when_the_connection_breaks(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    begun(tab)
    await_finals(tab, 1)
    tab.until("return document.querySelector('live-view').session.level > 0.02")
    tab.run("sockets.at(-1).close()")
    tab.until("return document.querySelector('.state').dataset.state == 'reconnecting'")
    assert "connection is lost" in text_of(tab, ".state")
    tab.until("return document.querySelector('.state').dataset.state == 'live'", 30)
    tab.until("return document.querySelector('.toast')?.innerText.includes('No word is lost')")
    await_finals(tab, SENTENCES)
    stopped(tab)
    assert finals(tab) == [SAYS] * SENTENCES
    # A script that asks why a handshake would be refused is told that it would not.
    assert [it for it in tab.problems if "426" not in it] == []


def test_a_session_that_is_kept_is_a_recording(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    begun(tab)
    await_finals(tab, 1)
    stopped(tab)
    click(tab, "#keep")
    link = tab.until("return document.querySelector('a[href^=\"#/recordings/\"]')?.hash")
    id_ = link.rpartition("/")[2]
    job = tab.run(f"return (await fetch('/v1/jobs/{id_}')).json()")
    assert job["file"]["name"].startswith("Live ") and job["file"]["name"].endswith(".wav")
    assert tab.problems == []


def test_a_session_ends_with_its_view(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    begun(tab)
    tab.run("location.hash = '#/start'")
    tab.until("return streams[0].getTracks()[0].readyState == 'ended'")
    tab.until("return sockets.every((it) => it.readyState > 1)")
    assert tab.problems == []


def test_a_file_is_heard_and_another_one_is_refused(
    tab: Tab, address: str, tmp_path: Any, talk: bytes
) -> None:
    opened(tab, address, "live")
    tab.run(
        """const source = document.querySelector('[name=source]');
        source.value = 'file'; source.dispatchEvent(new Event('change'));"""
    )
    (tmp_path / "talk.wav").write_bytes(wav(talk))
    (tmp_path / "not.wav").write_text("no audio")
    give(tab, "[name=file]", tmp_path / "not.wav")
    click(tab, "#begin")
    assert problem(tab) == "not_audio"
    give(tab, "[name=file]", tmp_path / "talk.wav")
    click(tab, "#begin")
    await_finals(tab, SENTENCES)
    tab.until("return document.querySelector('.state').dataset.state == 'over'", 30)
    assert finals(tab) == [SAYS] * SENTENCES


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("NotAllowedError", "denied", "permit"),
        ("NotFoundError", "absent", "no microphone"),
        ("NotReadableError", "busy", "Another program"),
    ],
)
def test_a_microphone_that_cannot_be_had_is_explained(
    tab: Tab, address: str, name: str, code: str, says: str
) -> None:
    opened(tab, address, "live")
    failing = f"() => Promise.reject(new DOMException('', '{name}'))"
    tab.run(f"navigator.mediaDevices.getUserMedia = {failing}")
    click(tab, "#begin")
    assert problem(tab) == code
    assert says in text_of(tab, ".notice")
    assert tab.problems == []


def test_a_browser_that_denies_the_microphone_is_explained(address: str) -> None:
    with running() as browser, browser.tab() as tab:
        opened(tab, address, "live")
        click(tab, "#begin")
        assert problem(tab) in ("denied", "absent")


def test_without_https_the_page_says_what_to_do(browser: Browser, tmp_path: Any) -> None:
    config = Config.model_validate({"profile": "sim", "browser": {"hosts": ["voice.example"]}})
    with served(config) as address, browser.tab() as tab:
        opened(tab, f"voice.example:{address.rpartition(':')[2]}", "live")
        click(tab, "#begin")
        assert problem(tab) == "insecure"
        assert "https://" in text_of(tab, ".notice")


def test_a_full_server_is_explained_and_tried_again(tab: Tab) -> None:
    limits = Limits(max_sessions=1, retry_after_s=2)
    with served(Config(profile="sim", limits=limits)) as address:
        with connect(f"ws://{address}/v1/transcribe/stream") as other:
            assert json.loads(other.recv())["type"] == "session"
            opened(tab, address, "live")
            click(tab, "#begin")
            assert problem(tab) == "too_many_sessions"
            assert "Trying again in" in text_of(tab, ".countdown")
        tab.until("return document.querySelector('.state').dataset.state == 'live'", 30)
        assert text_of(tab, ".notice[role=alert]") == ""


COUNT = """
  const rate = RATE, seconds = 20;
  const context = new OfflineAudioContext(1, rate * seconds, rate);
  await context.audioWorklet.addModule('/web/audio/capture_worklet.js');
  const options = {numberOfOutputs: 0, processorOptions: {rate: 16000, block: 1600}};
  const node = new AudioWorkletNode(context, 'capture', options);
  let samples = 0, loudest = 0;
  node.port.onmessage = ({data}) => {
    samples += data.samples?.length ?? 0;
    loudest = Math.max(loudest, data.level ?? 0);
  };
  const tone = new OscillatorNode(context, {frequency: 440});
  tone.connect(node);
  tone.start();
  await context.startRendering();
  await new Promise((done) => setTimeout(done, 300));
  return [samples, loudest];
"""


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000, 8_000])
def test_samples_are_neither_lost_nor_made_up(tab: Tab, address: str, rate: int) -> None:
    """Of 20 s; what is left of the last block comes at the end."""
    opened(tab, address, "live")
    samples, loudest = tab.run(COUNT.replace("RATE", str(rate)))
    assert 320_000 * 0.999 - 1_600 <= samples <= 320_000 * 1.001
    assert loudest == pytest.approx(0.707, abs=0.02)


FEED = """
  const {Captions} = await import('/web/live/captions.js');
  await import('/web/parts/caption_list.js');
  const list = document.createElement('caption-list');
  document.querySelector('main').append(list);
  const captions = new Captions();
  window.fed = 0;
  window.list = list;
  window.feed = async (count) => {
    for (let i = 0; i < count; i++) {
      const at = fed * 3000, text = `This is sentence number ${fed}.`;
      for (const type of ['partial', 'partial', 'partial', 'final']) {
        captions.take({type, start_ms: at, end_ms: at + 2500, text, words: []});
        Object.assign(list, {finals: captions.finals, partial: captions.partial});
        await list.updateComplete;
      }
      fed += 1;
    }
  };
"""


def test_two_hours_of_captions_stay_small_and_the_position_holds(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    tab.run(FEED)
    tab.run("await feed(600)")
    before = heap(tab)
    tab.run("await feed(1800)")
    assert heap(tab) - before < 8e6, "beyond the words themselves"
    bottom = "const it = list.querySelector('.captions'); return it.scrollHeight - it.scrollTop"
    assert tab.run(bottom) < 2000
    tab.run(
        """const it = list.querySelector('.captions');
        it.dispatchEvent(new WheelEvent('wheel', {deltaY: -100, bubbles: true}));
        it.scrollTop = 1000;"""
    )
    tab.until("return !!list.querySelector('.latest')")
    tab.run("await feed(10)")
    assert tab.run("return list.querySelector('.captions').scrollTop") == 1000
    tab.run("list.querySelector('.latest').click(); await list.updateComplete")
    assert tab.run(bottom) < 2000
    assert tab.run("return window.find('sentence number 3.')"), "all of it is in the page"


def heap(tab: Tab) -> float:
    tab.call("HeapProfiler.collectGarbage")
    return float(tab.call("Runtime.getHeapUsage")["usedSize"])


def test_large_type_and_expected_words(tab: Tab, address: str) -> None:
    opened(tab, address, "live")
    typed(tab, "[name=hotwords]", " Ada,  Grace Hopper ,")
    begun(tab)
    asked = tab.run("return document.querySelector('live-view').session.wanted.hotwords")
    assert asked == ["Ada", "Grace Hopper"]
    click(tab, "#large")
    tab.until("return document.activeElement.className == 'leave'")
    size = "parseFloat(getComputedStyle(document.querySelector('.captions')).fontSize)"
    assert tab.run(f"return {size}") >= 28
    accessible(tab)
    click(tab, ".leave")
    tab.until("return document.activeElement.id == 'large'")
    stopped(tab)
