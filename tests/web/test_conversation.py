"""Conversations in a browser: a microphone that plays a file, a reply that is interrupted."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments.chat.sim import SimChat
from deployments.interfaces import ChatDelta, ChatRequest
from deployments.speaker.sim import SimSpeaker
from loadtest.speech import wav
from serve_app.config import Config, Limits, StorageConfig
from serve_app.identity.principal import Scope
from tests.browser import Browser, Tab, microphone, running
from tests.fakes import FakeTranscriber, LocalReplicaSet, models, served
from tests.identity.keys import key_of, keyed, with_keys
from tests.web.page import accessible, click, opened, text_of, typed

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='hacked'>"
STATE = "document.querySelector('.state').dataset.state"
TALK = "document.querySelector('conversation-view').talk"


class Wordy(SimChat):
    """Replies with much, and with markup."""

    def __init__(self) -> None:
        super().__init__(5, 1, 40)

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        yield ChatDelta(request.session, f"{HOSTILE}. ")
        async for delta in super().reply(request):
            yield delta


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, speech: bytes) -> Iterator[Browser]:
    """Speech, a reply's time of silence, and speech over the reply."""
    pause = np.zeros(16_000 * 3, np.int16).tobytes()
    file = tmp_path_factory.mktemp("microphone") / "talk.wav"
    file.write_bytes(wav(speech + pause + speech + pause * 4))
    with running(*microphone(file)) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage = StorageConfig(directory=str(tmp_path_factory.mktemp("storage")))
    says = LocalReplicaSet(sim=FakeTranscriber(f"hello {HOSTILE}"))
    there = models(transcriber=says, chat_engine=Wordy(), speaker_engine=SimSpeaker(5, 10.0, 50.0))
    with served(Config(profile="sim", storage=storage), there) as address:
        yield address


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Tab]:
    with browser.tab() as tab:
        opened(tab, address, "conversation")
        yield tab


def begun(tab: Tab) -> None:
    click(tab, "#begin")
    tab.until(f"return ['listening', 'hearing'].includes({STATE})")


def test_a_spoken_turn_and_an_interruption(tab: Tab) -> None:
    accessible(tab)
    begun(tab)
    tab.until("return !!document.querySelector('.item.user')", 30)
    tab.until(f"return {STATE} == 'speaking'", 30)
    assert HOSTILE in text_of(tab, ".item.user"), "what was said is text"
    accessible(tab)
    tab.until(f"return {TALK}.silenced.at > 0", 30)
    took = tab.run(f"return {TALK}.silenced.at - {TALK}.silenced.asked")
    assert took < 200, "silent at once"
    tab.until("return !!document.querySelector('.unheard')", 30)
    assert tab.run("return document.title") == "Conversation – voxray"
    tab.until("return !!document.querySelector('.waterfall td')", 30)
    accessible(tab)
    click(tab, "#end")
    tab.until(f"return {STATE} == 'over'")
    assert tab.run(
        f"return {TALK}.capture.stream.getTracks().every((it) => it.readyState == 'ended')"
    )
    click(tab, "#keep")
    tab.until("return document.querySelector('a[href^=\"#/recordings/\"]')?.hash")
    assert tab.problems == []


def test_what_is_truncated_is_what_was_played(tab: Tab) -> None:
    tab.run(
        """window.sent = [];
        const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) {
          const event = JSON.parse(data);
          if (event.type == 'conversation.item.truncate') sent.push(event);
          return send.call(this, data);
        };"""
    )
    begun(tab)
    typed(tab, "#type input", "Tell me much.")
    click(tab, "#type button")
    tab.until(f"return {STATE} == 'speaking'", 30)
    tab.run("await new Promise((done) => setTimeout(done, 700))")
    click(tab, "#interrupt")
    sent = tab.until("return window.sent[0]")
    played = tab.run(f"return {TALK}.player.playedMs({sent['item_id']!r})")
    assert 300 < sent["audio_end_ms"] <= played + 1
    assert played - sent["audio_end_ms"] < 30, "nothing is played after it"
    tab.until("return !!document.querySelector('.unheard')", 30)
    assert text_of(tab, ".notice[role=alert]") == "", "the server had made all of it: no error"
    click(tab, "#end")


def test_a_muted_microphone_sends_silence_so_that_turns_end(tab: Tab) -> None:
    tab.run(
        """window.loud = 0;
        const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) {
          const event = JSON.parse(data);
          if (event.audio) { window.appended = (window.appended ?? 0) + 1; if (/[^A]/.test(event.audio.slice(0, 4000))) loud += 1; }
          return send.call(this, data);
        };"""
    )
    begun(tab)
    click(tab, "#mute")
    tab.run("await new Promise((done) => setTimeout(done, 500)); loud = 0; appended = 0")
    tab.until("return appended > 10")
    assert tab.run("return loud") == 0
    assert tab.run("return document.querySelector('#mute').getAttribute('aria-pressed')") == "true"
    click(tab, "#end")


def test_push_to_talk(tab: Tab) -> None:
    tab.run("document.querySelector('[name=push]').click()")
    begun(tab)
    tab.run(f"{TALK}.hold(true)")
    tab.until(f"return {STATE} == 'hearing'")
    tab.run("await new Promise((done) => setTimeout(done, 2000))")
    tab.run(f"{TALK}.hold(false)")
    tab.until("return !!document.querySelector('.item.assistant')", 30)
    accessible(tab)
    click(tab, "#end")
    assert tab.problems == []


def test_wrong_tools_are_said(tab: Tab) -> None:
    tab.run("document.querySelector('details').open = true")
    typed(tab, "[name=tools]", "{not json")
    click(tab, "#begin")
    tab.until("return document.querySelector('.problem')?.innerText.includes('not a JSON list')")
    assert tab.run("return document.querySelector('conversation-view').talk") is None


def test_a_lost_server_is_explained_and_the_text_stays(browser: Browser, tmp_path: Path) -> None:
    storage = StorageConfig(directory=str(tmp_path))
    with browser.tab() as tab:
        with served(Config(profile="sim", storage=storage)) as address:
            opened(tab, address, "conversation")
            begun(tab)
            typed(tab, "#type input", "Hello.")
            click(tab, "#type button")
            tab.until("return !!document.querySelector('.item.assistant')", 30)
        tab.until(f"return {STATE} == 'over'", 60)
        assert text_of(tab, ".notice[role=alert]")
        assert tab.run("return !!document.querySelector('.item.user')")
        before = text_of(tab, ".said")
        click(tab, "#begin")
        tab.until(f"return {STATE} == 'over'", 60)
        assert "Hello." in before
        assert text_of(tab, ".said") == before, "starting again keeps the text"


def test_a_tool_is_answered_by_hand(tab: Tab) -> None:
    tab.run("document.querySelector('details').open = true")
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
    typed(tab, "[name=tools]", json.dumps(tools))
    begun(tab)
    click(tab, "#mute")
    typed(tab, "#type input", "How is the weather?")
    click(tab, "#type button")
    tab.until("return !!document.querySelector('.item.tool [name=output]')", 30)
    typed(tab, ".item.tool [name=output]", HOSTILE)
    click(tab, ".item.tool button")
    tab.until("return !!document.querySelector('.item.tool ~ .item.assistant')", 30)
    assert HOSTILE in text_of(tab, ".item.tool"), "the answer is text"
    assert f"tool: weather({{}}) = {HOSTILE}" in tab.run(f"return {TALK}.turns.text")
    accessible(tab)
    click(tab, "#end")
    assert tab.problems == []


def test_late_sound_of_a_cancelled_reply_is_not_played(tab: Tab) -> None:
    """What was on its way when the person stopped the reply is given to the page after it."""
    begun(tab)
    click(tab, "#mute")
    tab.run(
        f"""const {{realtime}} = {TALK}; const take = realtime.onEvent;
        window.late = null;
        realtime.onEvent = (event) => {{
          if (event.type == 'response.output_audio.delta' && !late) {{
            window.late = event;
            {TALK}.stopReply();
            take(event);
          }} else take(event);
        }};"""
    )
    typed(tab, "#type input", "Tell me much.")
    click(tab, "#type button")
    tab.until("return !!window.late", 30)
    tab.run("await new Promise((done) => setTimeout(done, 500))")
    assert tab.run(f"return {TALK}.player.playedMs(late.item_id)") == 0
    click(tab, "#end")
    assert tab.problems == []


def test_the_space_bar_talks_even_from_the_focused_button(tab: Tab) -> None:
    tab.run("document.querySelector('[name=push]').click()")
    begun(tab)
    tab.run("document.querySelector('#push').focus()")
    key = {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32}
    tab.call("Input.dispatchKeyEvent", type="keyDown", text=" ", **key)
    tab.until(f"return {STATE} == 'hearing'")
    tab.run("await new Promise((done) => setTimeout(done, 500))")
    tab.call("Input.dispatchKeyEvent", type="keyUp", **key)
    tab.until(f"return !{TALK}.held")
    click(tab, "#end")


def test_a_denied_microphone_is_explained(tab: Tab) -> None:
    failing = "() => Promise.reject(new DOMException('', 'NotAllowedError'))"
    tab.run(f"navigator.mediaDevices.getUserMedia = {failing}")
    click(tab, "#begin")
    tab.until(f"return {STATE} == 'over'")
    assert "does not permit" in text_of(tab, ".notice")
    assert tab.problems == []


def test_a_full_server_is_waited_for(browser: Browser, tmp_path: Path) -> None:
    limits = Limits(max_sessions=1, retry_after_s=2)
    storage = StorageConfig(directory=str(tmp_path))
    with served(Config(profile="sim", storage=storage, limits=limits)) as address:
        with browser.tab() as tab:
            opened(tab, address, "conversation")
            with browser.tab() as first:
                opened(first, address, "conversation")
                begun(first)
                click(tab, "#begin")
                tab.until("return document.querySelector('.countdown')?.innerText")
                assert text_of(tab, ".notice p")
                click(first, "#end")
            tab.until(f"return ['listening', 'hearing'].includes({STATE})", 30)
            assert not tab.run("return !!document.querySelector('.notice[role=alert]')")
            click(tab, "#end")


def test_words_stay_when_the_key_is_revoked_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    config = Config(profile="sim", storage=StorageConfig(directory=str(tmp_path)))
    with served(with_keys(config, "acme")) as address, browser.tab() as tab:
        tab.open(f"http://{address}/#/conversation")
        tab.until("return !!document.querySelector('[name=key]')")
        typed(tab, "[name=key]", key_of("acme"))
        click(tab, "form .primary")
        begun(tab)
        click(tab, "#mute")
        typed(tab, "#type input", "Hello.")
        click(tab, "#type button")
        tab.until("return !!document.querySelector('.item.assistant')", 30)
        keyed(tmp_path, bolt={Scope.JOBS})
        tab.until(f"return {STATE} == 'over'", 60)
        tab.until("return !!document.querySelector('[name=key]')")
        assert "Hello." in text_of(tab, ".said")
