"""A real browser: what pages of other origins can do with this server, and what its own can."""

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.cli.certificate import names
from serve_app.cluster.front import Front, to_environment
from serve_app.config import Config
from serve_app.security.certificates import TlsFiles, now, self_signed
from tests.answering import Answer, answering
from tests.api.sockets.test_live_socket import words
from tests.browser import Browser, Tab, running, trusting
from tests.cluster.test_haproxy import application, rendered
from tests.fakes import served
from tests.identity.keys import key_of, with_keys
from tests.server import BIN
from tests.waiting import await_listening, wait_for

pytestmark = pytest.mark.browser

SOCKETS = ("/v1/transcribe/stream", "/ws", "/v1/realtime", "/socket/?EIO=4&transport=websocket")
OUTCOME = """
const outcome = (url, protocols) => new Promise((done) => {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => { done("open " + socket.protocol); socket.close(); };
  socket.onerror = () => done("refused");
});
const file = (base64) => {
  const form = new FormData();
  const bytes = Uint8Array.from(atob(base64), (it) => it.charCodeAt(0));
  form.append("file", new Blob([bytes]), "talk.wav");
  return form;
};
const answer = async (url, options) => {
  try {
    const got = await fetch(url, options);
    return [got.status, got.ok ? "" : (await got.json()).error.code];
  } catch (error) {
    return error.name;
  }
};
"""


class BlankPage(Answer):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><body>")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another server on this machine, with blank pages."""
    with answering(BlankPage) as port:
        yield port


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as tab:
        yield tab


def configured(folder: Path, port: int) -> Config:
    """Pages of app.example may use it."""
    args = {
        "profile": "sim",
        "storage": {"directory": str(folder)},
        "browser": {"origins": [f"http://app.example:{port}"]},
    }
    return Config.model_validate(args)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory, elsewhere: int) -> Iterator[str]:
    """Without keys."""
    with served(configured(tmp_path_factory.mktemp("open"), elsewhere)) as address:
        yield address


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory, elsewhere: int) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("keyed"), elsewhere)
    with served(with_keys(config, "acme")) as address:
        yield address


def jobs(address: str) -> list[Any]:
    listed: list[Any] = httpx.get(f"http://{address}/v1/jobs", timeout=30).json()["data"]
    return listed


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost"])
def test_a_foreign_page_can_use_nothing(
    open_server: str, elsewhere: int, tab: Tab, host: str, speech: bytes
) -> None:
    tab.open(f"http://{host}:{elsewhere}/")
    before = jobs(open_server)
    body = base64_of(wav(speech))
    for mode in ("cors", "no-cors"):
        sent = f"""{OUTCOME}
        return answer("http://{open_server}/v1/jobs", {{method: "POST", mode: "{mode}",
          body: file("{body}")}})"""
        assert tab.run(sent) == "TypeError"
    assert jobs(open_server) == before
    for path in SOCKETS:
        assert tab.run(f'{OUTCOME} return outcome("ws://{open_server}{path}")') == "refused"
    for url in ("/v1/jobs", "/docs/assets/swagger-ui.css", "/web/voxray.js"):
        got = f"""{OUTCOME} return answer("http://{open_server}{url}", {{mode: "no-cors"}})"""
        assert tab.run(got) == "TypeError"


def test_a_form_of_a_foreign_page_is_refused(
    open_server: str, elsewhere: int, tab: Tab, speech: bytes
) -> None:
    """A form needs no script's permission to send, and shows the answer as a page."""
    tab.open(f"http://evil.example:{elsewhere}/")
    before = jobs(open_server)
    tab.run(
        f"""const form = document.createElement("form"), input = document.createElement("input");
        form.action = "http://{open_server}/v1/jobs";
        form.method = "post"; form.enctype = "multipart/form-data";
        const chosen = new DataTransfer();
        const bytes = Uint8Array.from(atob("{base64_of(wav(speech))}"), (it) => it.charCodeAt(0));
        chosen.items.add(new File([bytes], "talk.wav"));
        input.type = "file"; input.name = "file"; input.files = chosen.files;
        form.append(input); document.body.append(form);
        setTimeout(() => form.submit())"""
    )
    tab.until('return document.body?.innerText.includes("origin_not_allowed")')
    assert jobs(open_server) == before


def test_a_name_that_was_rebound_is_refused(open_server: str, tab: Tab) -> None:
    """The browser takes the page for the server's own."""
    port = open_server.split(":")[1]
    tab.open(f"http://evil.example:{port}/v1/jobs")
    assert tab.run('return document.body.innerText.includes("host_not_allowed")')
    for path in SOCKETS:
        url = f"ws://evil.example:{port}{path}"
        assert tab.run(f'{OUTCOME} return outcome("{url}")') == "refused"


def test_a_foreign_page_may_link_to_it_but_not_frame_it(
    open_server: str, elsewhere: int, tab: Tab
) -> None:
    tab.open(f"http://evil.example:{elsewhere}/")
    tab.run(
        f"""const frame = document.createElement("iframe");
        frame.src = "http://{open_server}/docs";
        document.body.append(frame);
        await new Promise((done) => frame.onload = done)"""
    )
    assert any("403" in it or "frame" in it.lower() for it in tab.problems), tab.problems
    tab.run(f'setTimeout(() => location = "http://{open_server}/docs")')
    tab.until('return document.title === "voxray API"')


def test_its_own_page_can_use_everything(open_server: str, tab: Tab, speech: bytes) -> None:
    for host in ("127.0.0.1", "localhost"):
        own = f"{host}:{open_server.split(':')[1]}"
        tab.open(f"http://{own}/docs")
        sent = f"""{OUTCOME}
        return answer("/v1/jobs", {{method: "POST", body: file("{base64_of(wav(speech))}")}})"""
        assert tab.run(sent) == [202, ""]
        for path in SOCKETS:
            assert tab.run(f'{OUTCOME} return outcome("ws://{own}{path}")') == "open "
    assert len(jobs(open_server)) >= 2


def transcribed(tab: Tab, speech: bytes, key: str = "") -> list[dict[str, Any]]:
    """The events that a page of the server gets with the client that it serves."""
    events: list[dict[str, Any]] = tab.run(
        f"""const {{ LiveTranscription }} = await import("/web/voxray.js");
        const events = [];
        const live = new LiveTranscription(location.origin, {{ language: "en" }},
          (event) => events.push(event), "{key}");
        const bytes = Uint8Array.from(atob("{base64_of(speech)}"), (it) => it.charCodeAt(0));
        for (let at = 0; at < bytes.length; at += 3200)
          await live.send(bytes.subarray(at, at + 3200));
        live.finish();
        await live.done;
        return events"""
    )
    return events


def test_its_own_page_transcribes_with_the_client_it_serves(
    open_server: str, tab: Tab, speech: bytes
) -> None:
    tab.open(f"http://{open_server}/docs")
    events = transcribed(tab, speech)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "session" and "final" in kinds and kinds[-1] == "closed"
    assert tab.problems == []


@pytest.mark.parametrize("origin", ["evil.example", "127.0.0.1"])
def test_a_socket_with_a_client_secret_comes_from_anywhere(
    open_server: str, elsewhere: int, tab: Tab, origin: str
) -> None:
    """Its own server has asked for the secret; OpenAI's clients send it like this."""
    tab.open(f"http://{origin}:{elsewhere}/")
    url = f"http://{open_server}/v1/realtime/client_secrets"
    for session, path, protocol in (
        ({"type": "realtime"}, "/v1/realtime", "realtime"),
        ({"type": "transcription"}, "/v1/realtime", "realtime"),
        ({"type": "transcription"}, "/v1/transcribe/stream", "voxray"),
        ({"type": "realtime"}, "/ws", "voxray"),
    ):
        secret = httpx.post(url, json={"session": session}, timeout=30).json()["value"]
        offered = f'["{protocol}", "openai-insecure-api-key.{secret}"]'
        opened = f'{OUTCOME} return outcome("ws://{open_server}{path}", {offered})'
        assert tab.run(opened) == f"open {protocol}"
        assert tab.run(opened.replace(secret, secret[:-3])) == "refused"


def test_pages_of_the_list_use_rest_and_read_refusals(
    open_server: str, elsewhere: int, tab: Tab, speech: bytes
) -> None:
    tab.open(f"http://app.example:{elsewhere}/")
    sent = f"""{OUTCOME}
    const at = "http://{open_server}";
    return [
      await answer(at + "/v1/models"),
      await answer(at + "/v1/jobs", {{method: "POST", body: file("{base64_of(wav(speech))}")}}),
      await answer(at + "/v1/jobs/none", {{method: "DELETE"}}),
      await answer(at + "/v1/chat/completions", {{method: "POST", body: "{{",
        headers: {{"content-type": "application/json", "x-stainless-lang": "js"}}}}),
      await answer(at + "/nothing"),
      await answer(at + "/v1/jobs", {{method: "PUT"}}),
      await outcome("ws://{open_server}/v1/realtime"),
    ]"""
    assert tab.run(sent) == [
        [200, ""],
        [202, ""],
        [404, "job_not_found"],
        [400, "invalid_json"],
        [404, "not_found"],
        [405, "method_not_allowed"],
        "open ",
    ]


def test_with_keys_a_page_of_the_list_shows_one(
    keyed_server: str, elsewhere: int, tab: Tab
) -> None:
    asked = f"""{OUTCOME}
    const ask = (key) => answer("http://{keyed_server}/v1/models",
      {{headers: key ? {{Authorization: "Bearer " + key}} : {{}}}});
    return [await ask("{key_of("acme")}"), await ask("{key_of("other")}"), await ask("")]"""
    tab.open(f"http://app.example:{elsewhere}/")
    assert tab.run(asked) == [[200, ""], [401, "invalid_api_key"], [401, "missing_api_key"]]
    tab.open(f"http://evil.example:{elsewhere}/")
    assert tab.run(asked) == ["TypeError"] * 3, "it reads nothing, whatever it shows"


def test_with_keys_every_socket_needs_one(keyed_server: str, elsewhere: int, tab: Tab) -> None:
    for page in (f"http://{keyed_server}/docs", f"http://evil.example:{elsewhere}/"):
        tab.open(page)
        for path in SOCKETS[:3]:
            url = f'"ws://{keyed_server}{path}"'
            assert tab.run(f"{OUTCOME} return outcome({url})") == "refused"
            offered = f'["realtime", "voxray", "openai-insecure-api-key.{key_of("acme")}"]'
            assert tab.run(f"{OUTCOME} return outcome({url}, {offered})").startswith("open ")


def test_docs_work_under_their_policy(keyed_server: str, tab: Tab) -> None:
    """Under a public name, too."""
    port = keyed_server.split(":")[1]
    for host in ("127.0.0.1", "voice.example"):
        tab.open(f"http://{host}:{port}/docs")
        assert tab.until('return document.querySelectorAll(".opblock").length') > 20
        assert tab.problems == []


def test_authorize_in_the_docs_works(keyed_server: str, tab: Tab) -> None:
    tab.open(f"http://{keyed_server}/docs")
    tab.until('return document.querySelectorAll(".opblock").length')
    assert tried(tab, "/v1/models") == "401"
    click(tab, ".auth-wrapper .authorize")
    tab.until(
        """const it = document.querySelector(".auth-container input");
        it?.focus();
        return document.activeElement === it"""
    )
    tab.call("Input.insertText", text=key_of("acme"))
    click(tab, ".auth-container .auth-btn-wrapper .authorize")
    click(tab, ".auth-container .btn-done")
    assert tried(tab, "/v1/models") == "200"


def click(tab: Tab, selector: str) -> None:
    tab.until(f"""const it = document.querySelector("{selector}"); it?.click(); return !!it""")


def tried(tab: Tab, path: str) -> str:
    """The status of the answer to "Try it out"."""
    block = f""".opblock:has([data-path="{path}"])"""
    if not tab.run(f"""return !!document.querySelector('{block} .opblock-body')"""):
        tab.run(f"""document.querySelector('{block} .opblock-summary-control').click()""")
    tab.until(f"""return !!document.querySelector('{block} .try-out')""")
    tab.run(f"""document.querySelector('{block} .try-out__btn:not(.cancel)')?.click()""")
    tab.until(f"""return !!document.querySelector('{block} .execute')""")
    tab.run(f"""document.querySelector('{block} .btn-clear')?.click();
    document.querySelector('{block} .execute').click()""")
    status: str = tab.until(
        f"""return document.querySelector(
        '{block} .live-responses-table .response .response-col_status')?.innerText"""
    )
    return status.split()[0]


@contextmanager
def encrypted(folder: Path, address: str, files: TlsFiles) -> Iterator[str]:
    """The server behind HAProxy."""
    front = Front(certificate=files.certificate, key=files.key)
    backend = replace(application(port_of(address)), http_health_check_path="/v1/health")
    file, port = rendered(folder, backend)
    command = [str(BIN / "voxray-haproxy"), "-db", "-f", str(file)]
    process = subprocess.Popen(command, env=os.environ | to_environment(front))
    try:
        await_listening(port, process)
        wait_for(lambda: answers(f"https://127.0.0.1:{port}/v1/health"))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    return httpx.get(url, verify=False, timeout=30).status_code == 200


def port_of(address: str) -> int:
    return int(address.split(":")[1])


def test_over_tls_its_own_pages_work_and_foreign_ones_do_not(
    open_server: str, elsewhere: int, tab: Tab, tmp_path: Path, speech: bytes
) -> None:
    """With a certificate of our own, which the browser of a visitor must be told to trust."""
    files = self_signed(tmp_path / "tls", names("127.0.0.1"), now())
    with (
        encrypted(tmp_path, open_server, files) as address,
        running(trusting(files.certificate)) as trusted,
        trusted.tab() as its,
    ):
        for host in ("127.0.0.1", "localhost"):
            own = f"{host}:{port_of(address)}"
            with pytest.raises(AssertionError, match="CERT_AUTHORITY_INVALID"):
                tab.open(f"https://{own}/docs")
            its.open(f"https://{own}/docs")
            assert its.until('return document.querySelectorAll(".opblock").length') > 20
            assert its.run("return isSecureContext")
            assert its.run(f"{OUTCOME} return answer('/v1/jobs')") == [200, ""]
            assert words(transcribed(its, speech))
            for path in SOCKETS:
                assert its.run(f'{OUTCOME} return outcome("wss://{own}{path}")') == "open "
        assert its.problems == []
        its.open(f"http://evil.example:{elsewhere}/")
        for path in SOCKETS:
            assert its.run(f'{OUTCOME} return outcome("wss://{address}{path}")') == "refused"
        assert its.run(f"{OUTCOME} return answer('https://{address}/v1/jobs')") == "TypeError"
