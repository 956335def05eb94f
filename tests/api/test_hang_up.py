"""A client that hangs up before its answer: the model stops, and the place is free."""

import json
import socket
import time
from collections.abc import Callable

import httpx2 as httpx
import pytest

from deployments.chat.sim import SimChat
from loadtest.speech import wav
from serve_app.config import Config, Limits
from tests.fakes import FakeTranscriber, LocalReplicaSet, models, served
from tests.waiting import wait_for

CHAT = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hello"}]}).encode()


def send(address: str, path: str, kind: str, body: bytes) -> socket.socket:
    host, port = address.split(":")
    client = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def form(file: bytes, **fields: str) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
        for k, v in fields.items()
    ]
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return "".join(parts).encode() + head.encode() + file + b"\r\n--x--\r\n"


@pytest.mark.parametrize("route", ["native", "openai", "openai stream"])
def test_a_recording_whose_client_hangs_up_gives_its_place_back(route: str, speech: bytes) -> None:
    mute = FakeTranscriber(mute=True)
    config = Config(profile="sim", limits=Limits(max_recordings=1))
    given = models(transcriber=LocalReplicaSet(one=mute))
    fields = {"stream": "true"} if "stream" in route else {}
    with served(config, given) as address:
        if route == "native":
            client = send(address, "/v1/transcribe", "audio/wav", wav(speech))
        else:
            body = form(wav(speech), model="any", **fields)
            client = send(
                address, "/v1/audio/transcriptions", "multipart/form-data; boundary=x", body
            )
        wait_for(lambda: mute.heard and refused(address))
        assert not mute.left
        client.close()
        wait_for(lambda: not refused(address))
        wait_for(lambda: mute.left == [mute.heard[0].session])


def test_a_chat_request_whose_client_hangs_up_stops_the_model() -> None:
    slow = SimChat(1, 20, 10_000)
    with served(given=models(chat_engine=slow)) as address:
        client = send(address, "/v1/chat/completions", "application/json", CHAT)
        wait_for(lambda: slow.generated() > 0)
        client.close()
        wait_for(lambda: stands_still(slow.generated))


def stands_still(count: Callable[[], int]) -> bool:
    before = count()
    time.sleep(0.2)  # ten tokens' time: a model that goes on is seen
    return count() == before


def refused(address: str) -> bool:
    """All places are taken: an empty body tells it without work."""
    answer = httpx.post(f"http://{address}/v1/transcribe", content=b"", timeout=30)
    assert answer.status_code in (400, 503), answer.text
    return bool(answer.json()["error"]["code"] == "too_many_recordings")
