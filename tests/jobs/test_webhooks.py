"""Webhooks: signed as stock verifiers demand, tried again, dead in the end, never led astray."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.jobs.webhooks import delivery
from tests.jobs.test_jobs import Client, config, running
from tests.waiting import wait_for

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four.").decode()
Answer = Callable[[BaseHTTPRequestHandler], None]


class Receiver:
    """Somebody's server; `answer` says what it does."""

    def __init__(self, answer: Answer) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
                answer(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?a=1"


def status(code: int, **headers: str) -> Answer:
    def answer(call: BaseHTTPRequestHandler) -> None:
        call.send_response(code)
        for name, value in headers.items():
            call.send_header(name, value)
        call.end_headers()

    return answer


@contextmanager
def receiver(answer: Answer) -> Iterator[Receiver]:
    got = Receiver(answer)
    thread = threading.Thread(target=got.server.serve_forever)
    thread.start()
    try:
        yield got
    finally:
        got.server.shutdown()
        got.server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret that signs, and a courier that looks for what is due all the time."""
    monkeypatch.setenv("VOXRAY_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(delivery, "POLL_S", 0.02)


def hooked(folder: Path, **webhook: Any) -> Config:
    return config(
        folder,
        webhook={
            "retry_backoff_s": 0.1,
            "timeout_s": 1,
            "max_attempts": 3,
            "allow_private": True,
            **webhook,
        },
    )


def listed(client: Client, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/webhooks", params={"state": state}).json()["data"]
    return found


def test_stock_verifiers_take_it(tmp_path: Path, talk: bytes) -> None:
    import openai
    from standardwebhooks import Webhook

    with receiver(status(204)) as hook, running(hooked(tmp_path)) as client:
        result = client.done(wav(talk), webhook=hook.url)
        headers, body = wait_for(lambda: hook.calls)[0]
        assert wait_for(lambda: listed(client, "delivered"))[0]["job_id"] == result["id"]
    told: Any = Webhook(SECRET).verify(body, headers)
    assert told["type"] == "job.completed" and told["data"]["id"] == result["id"]
    with openai.OpenAI(api_key="none") as stock:
        stock.webhooks.verify_signature(body, headers, secret=SECRET)
    for wrong in (body + b" ", body.replace(b"completed", b"cancelled")):
        with pytest.raises(Exception, match="signature"):
            Webhook(SECRET).verify(wrong, headers)
    assert "full_text" not in body.decode(), "what was said goes to nobody but its owner"


def test_a_job_that_fails_calls_the_webhook_too(tmp_path: Path) -> None:
    with receiver(status(200)) as hook, running(hooked(tmp_path)) as client:
        client.submit(b"RIFF\x24\x00\x00\x00WAVEfmt garbage garbage", webhook=hook.url)
        _, body = wait_for(lambda: hook.calls)[0]
    told = json.loads(body)
    assert told["type"] == "job.failed" and told["data"]["error"]["code"] == "unreadable_audio"


def test_it_is_tried_again_with_the_same_id_then_delivered(tmp_path: Path, talk: bytes) -> None:
    attempts = iter((500, 503, 200))

    def answer(call: BaseHTTPRequestHandler) -> None:
        status(next(attempts))(call)

    with receiver(answer) as hook, running(hooked(tmp_path)) as client:
        client.done(wav(talk), webhook=hook.url)
        wait_for(lambda: listed(client, "delivered"))
        assert len(hook.calls) == 3
        assert len({headers["webhook-id"] for headers, _ in hook.calls}) == 1
        assert len({body for _, body in hook.calls}) == 1


def hang(call: BaseHTTPRequestHandler) -> None:
    """No answer for as long as the caller waits for one."""
    call.connection.settimeout(20)
    call.connection.recv(1)


def flood(call: BaseHTTPRequestHandler) -> None:
    """A success whose body never ends."""
    call.send_response(200)
    call.end_headers()
    with pytest.raises(OSError):
        while True:
            call.wfile.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (status(500), "HTTP 500"),
        (status(302, location="http://127.0.0.1:1/"), "HTTP 302"),
        (status(410), "HTTP 410"),
        (hang, "no answer in time"),
    ],
)
def test_what_never_succeeds_is_dead_and_listed_and_can_be_tried_again(
    tmp_path: Path, talk: bytes, answer: Answer, outcome: str
) -> None:
    with receiver(answer) as hook, running(hooked(tmp_path, timeout_s=0.3)) as client:
        client.done(wav(talk), webhook=hook.url)
        (dead,) = wait_for(lambda: listed(client, "dead"))
        assert (dead["attempts"], dead["url"]) == (3, hook.url)
        assert dead["outcome"] == outcome
        again = httpx.post(f"{client.url}/v1/webhooks/{dead['id']}/retry")
        assert again.status_code == 202 and again.json()["state"] == "waiting"
        wait_for(lambda: len(hook.calls) >= 4)
        assert httpx.post(f"{client.url}/v1/webhooks/nothing/retry").status_code == 404


def test_one_that_hangs_keeps_nobody_waiting(tmp_path: Path, talk: bytes) -> None:
    over = threading.Event()

    def never(_: BaseHTTPRequestHandler) -> None:
        over.wait(20)

    with (
        receiver(never) as slow,
        receiver(status(204)) as hook,
        running(hooked(tmp_path, timeout_s=20)) as client,
    ):
        client.done(wav(talk), webhook=slow.url)
        wait_for(lambda: slow.calls)
        client.done(wav(talk), webhook=hook.url)
        wait_for(lambda: listed(client, "delivered"), 8)
        assert not listed(client, "dead")
        over.set()


def test_an_endless_answer_is_not_read(tmp_path: Path, talk: bytes) -> None:
    with receiver(flood) as hook, running(hooked(tmp_path)) as client:
        client.done(wav(talk), webhook=hook.url)
        wait_for(lambda: listed(client, "delivered"))


def test_private_addresses_are_refused_after_resolution(tmp_path: Path, talk: bytes) -> None:
    with receiver(status(200)) as hook, running(hooked(tmp_path, allow_private=False)) as client:
        port = hook.server.server_address[1]
        client.done(wav(talk), webhook=f"http://localhost:{port}/")
        (dead,) = wait_for(lambda: listed(client, "dead"))
        assert "not public" in dead["outcome"] and not hook.calls
