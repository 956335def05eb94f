"""A drain in every dialect: what is open ends in its own form, what is new is refused."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import socketio
import websockets
from websockets.asyncio.client import connect
from websockets.sync.client import connect as websocket

from deployments.chat.sim import SimChat
from loadtest.speech import wav
from serve_app.config import Config
from tests.api.sockets.test_conversation_socket import Wire, audio
from tests.api.sockets.test_live_socket import PATH, chunks, converse, events_of, of, words
from tests.api.sockets.test_realtime import TRANSCRIBED, Client, at_24k
from tests.fakes import Serving, models, served, serving
from tests.jobs import test_jobs as jobs
from tests.ports import free_port
from tests.waiting import until, wait_for

TIMEOUT_S = 0.5


@contextmanager
def draining(timeout_s: float = TIMEOUT_S, given: Any = None, **more: Any) -> Iterator[Serving]:
    """A server whose drain a test can begin."""
    config = Config.model_validate({"profile": "sim", "drain": {"timeout_s": timeout_s}, **more})
    with serving(config, given) as here:
        yield here


def rest_of(socket: Any) -> list[dict[str, Any]]:
    """All messages until the server closes."""
    messages = []
    try:
        for message in socket:
            messages.append(json.loads(message))
    except websockets.ConnectionClosedError:
        pass
    return messages


def slow_replies() -> Any:
    return models(chat_engine=SimChat(5, 60, 20))


def test_a_session_gets_the_words_of_all_its_audio(speech: bytes) -> None:
    async def go() -> tuple[list[dict[str, Any]], int | None]:
        async with connect(f"ws://{here.address}{PATH}") as socket:
            gathering = asyncio.create_task(events_of(socket))
            for chunk in chunks(speech)[:20]:  # in the middle of the sentence
                await socket.send(chunk)
            here.begin_drain()
            return await asyncio.wait_for(gathering, 10), socket.close_code

    with draining() as here:
        events, code = asyncio.run(go())
    with served() as address:
        whole, _ = converse(address, *chunks(speech)[:20])
    (notice,) = of("draining", events)
    assert notice["deadline_ms"] == 500 and notice["resume"]
    assert words(events) == words(whole) != "" and code == 1012
    assert events[-1]["type"] == "closed" and events[-1]["metrics"]["audio_ms"] == 2000
    assert not of("error", events)


def test_a_session_may_go_on_and_end_by_itself(speech: bytes) -> None:
    async def go() -> None:
        async with connect(f"ws://{here.address}{PATH}") as socket:
            await socket.recv()
            here.begin_drain()
            assert json.loads(await socket.recv())["type"] == "draining"
            for chunk in chunks(speech):
                await socket.send(chunk)
            await socket.send('{"type":"stop"}')
            events = await events_of(socket)
            assert words(events) and socket.close_code == 1000
        await until(here.drain.ended.is_set, 30)

    with draining(600) as here:
        asyncio.run(go())


def test_what_is_new_is_refused_and_questions_are_answered() -> None:
    with draining(600) as here, websocket(f"ws://{here.address}{PATH}"):
        url = f"http://{here.address}"
        assert httpx.get(f"{url}/v1/ready").status_code == 200
        here.begin_drain()
        wait_for(lambda: httpx.get(f"{url}/v1/ready").status_code == 503)
        for path in ("/v1/chat/completions", "/v1/audio/speech", "/v1/jobs", "/transcribe/stream"):
            refused = httpx.post(f"{url}{path}", content=b"{}")
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "server_restarting"
        for path in (PATH, "/ws", "/v1/realtime"):
            with (
                pytest.raises(websockets.InvalidStatus) as handshake,
                websocket(f"ws{url[4:]}{path}"),
            ):
                pass
            assert handshake.value.response.status_code == 503
            assert handshake.value.response.headers["Retry-After"] == "1"
        assert httpx.get(f"{url}/v1/health").json()["status"] == "draining"
        assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_conversation_finishes_its_turn(speech: bytes) -> None:
    async def go() -> Client:
        async with connect(f"ws://{here.address}/v1/realtime", max_size=None) as socket:
            client = Client(socket)
            await client.until("session.created")
            await client.update(**TRANSCRIBED)
            await client.speak(at_24k(speech))
            await client.until("response.created")
            here.begin_drain()
            with pytest.raises(websockets.ConnectionClosed):
                await client.until("never")
            assert socket.close_code == 1012
        return client

    with draining(given=slow_replies()) as here:
        client = asyncio.run(go())
    (done,) = client.of("response.done")
    assert done["response"]["status"] == "completed"
    assert client.of("conversation.item.input_audio_transcription.completed")


def test_a_turn_on_ws_and_on_tcp_gets_its_answer(speech: bytes) -> None:
    port = free_port()
    with (
        draining(given=slow_replies(), tcp={"port": port}) as here,
        websocket(f"ws://{here.address}/ws", max_size=None) as socket,
        Wire(port) as busy,
        Wire(port) as idle,
    ):
        socket.recv()
        socket.send(json.dumps(audio(speech, speak=False)))
        busy.send(audio(speech, speak=False))
        idle.send({"type": "ping"})
        assert idle.receive() == {"type": "pong"}
        here.begin_drain()
        messages = rest_of(socket)
        assert of("draining", messages) == [{"type": "draining", "deadline_ms": 500}]
        assert messages[-1]["type"] == "conversation_complete"
        assert messages[-1]["status"] == "completed" and socket.close_code == 1012
        result = busy.receive()
        assert result and result["status"] == "completed" and result["response_text"]
        assert busy.receive() is None and idle.receive() is None
        with pytest.raises(ConnectionRefusedError):
            Wire(port)


def test_vllms_dialect_gets_its_words(speech: bytes) -> None:
    async def go() -> None:
        async with connect(f"ws://{here.address}/v1/realtime", max_size=None) as socket:
            client = Client(socket)
            await client.send("session.update", model="m")
            await client.send("input_audio_buffer.commit", final=False)
            await client.speak(speech, 3200)
            await client.until("transcription.delta")
            here.begin_drain()
            assert (await client.until("transcription.done"))["text"]
            await socket.wait_closed()
            assert socket.close_code == 1012

    with draining() as here:
        asyncio.run(go())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_socket_io_gets_its_words_and_is_disconnected(speech: bytes) -> None:
    async def go() -> list[str]:
        told: list[str] = []
        clients = [socketio.AsyncClient(reconnection=False) for _ in range(2)]
        busy, idle = clients
        for name in ("transcription:final", "transcription:end"):
            busy.on(name, lambda _, name=name: told.append(name))
        for client in clients:
            await client.connect(f"http://{here.address}", socketio_path="/socket")
        await idle.emit("audio:stop")
        await busy.emit("audio:chunk", speech[:64_000])
        await until(lambda: httpx.get(f"http://{here.address}/v1/health").json()["active_sessions"])
        here.begin_drain()
        await asyncio.wait_for(asyncio.gather(*(client.wait() for client in clients)), 10)
        refused = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await refused.connect(f"http://{here.address}", socketio_path="/socket")
        return told

    with draining() as here:
        assert asyncio.run(go()) == ["transcription:final", "transcription:end"]


def test_a_chunked_body_gets_its_words(speech: bytes) -> None:
    def body() -> Iterator[bytes]:
        yield from chunks(speech)[:20]
        health = f"http://{here.address}/v1/health"
        wait_for(lambda: httpx.get(health).json()["active_sessions"])
        here.begin_drain()
        for _ in range(100):
            if here.drain.ended.is_set():
                return
            time.sleep(0.1)
            yield bytes(3200)

    with draining() as here:
        url = f"http://{here.address}/transcribe/stream"
        with httpx.stream("POST", url, content=body(), timeout=20) as answer:
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert of("final", events) and events[-1]["type"] == "closed" and of("draining", events)


def test_requests_in_progress_are_answered() -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        messages = [{"role": "user", "content": "Hi"}]
        url = f"http://{here.address}/v1/chat/completions"
        answers.append(httpx.post(url, json={"model": "m", "messages": messages}, timeout=20))

    with draining(0.1, given=slow_replies()) as here:
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: here.drain.requests)
        here.begin_drain()
        wait_for(here.drain.begun.is_set)
        assert not here.drain.ended.is_set()
        asking.join(20)
        wait_for(here.drain.ended.is_set)
    assert [answer.status_code for answer in answers] == [200]


def test_those_who_watch_a_job_are_sent_to_another_server(tmp_path: Path, talk: bytes) -> None:
    config = jobs.config(tmp_path)
    with serving(config) as here:  # without a worker: the job waits
        url = f"http://{here.address}/v1/jobs"
        id_ = httpx.post(url, files={"file": ("a.wav", wav(talk))}).json()["id"]
        with httpx.stream("GET", f"{url}/{id_}/events", timeout=20) as answer:
            lines = answer.iter_lines()
            assert '"queued"' in next(lines)
            here.begin_drain()
            assert not [line for line in lines if line]
        wait_for(here.drain.ended.is_set)


def test_a_live_recording_is_stored(tmp_path: Path, speech: bytes) -> None:
    config = jobs.config(tmp_path)
    with serving(config) as here:
        id_ = httpx.post(f"http://{here.address}/api/transcribe/start").json()["id"]
        with websocket(f"ws://{here.address}{PATH}?transcription={id_}") as socket:
            socket.recv()
            socket.send(speech)
            wait_for(lambda: json.loads(socket.recv(5))["type"] == "partial")
            here.drain.timeout_s = 0.1
            here.begin_drain()
            said = words(rest_of(socket))
        wait_for(here.drain.ended.is_set)
        result = httpx.get(f"http://{here.address}/v1/jobs/{id_}/results").json()
        assert result["full_text"] == said != ""
