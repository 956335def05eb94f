"""A server that stops: real processes, real signals, sessions and conversations in full flow."""

import asyncio
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import websockets
from websockets.asyncio.client import connect

from loadtest.speech import wav
from tests.api.sockets.test_live_socket import PATH, chunks, converse, of, words
from tests.api.sockets.test_realtime import TRANSCRIBED, Client, at_24k
from tests.fakes import LocalReplicaSet, models, served, sim_transcriber
from tests.jobs.test_jobs import Client as JobClient
from tests.server import Server, running, stop
from tests.waiting import until, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0
SLOW_REPLIES = {"sim": {"tokens": 30, "token_ms": 50.0}}
TRANSCRIBER = {"latency_ms": 5.0, "words_per_second": 2.5, "error_rate": 0.0, "seed": 0}
TRANSCRIPTION = "conversation.item.input_audio_transcription"
SIM = {
    "profile": "sim",
    "transcriber": {"sim": TRANSCRIBER},
    "chat": SLOW_REPLIES,
    "admission": {"enabled": False},  # this machine may be busy with other things
}


@dataclass
class Heard:
    """What a live session got, and how it was closed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None

    @property
    def audio_ms(self) -> int:
        return int(self.events[-1]["metrics"]["audio_ms"])


async def speaking(address: str, pcm: bytes, stop: asyncio.Event, heard: Heard) -> None:
    """A session that speaks in real time, over and over, until `stop` or until it is closed."""
    async with connect(f"ws://{address}{PATH}", max_size=None) as socket:
        gathering = asyncio.create_task(gather(socket, heard))
        began = time.monotonic()
        for number, chunk in enumerate(itertools.cycle(chunks(pcm))):
            if stop.is_set() or gathering.done():
                break
            await send(socket, chunk)
            await asyncio.sleep(began + (number + 1) / 10 - time.monotonic())
        if stop.is_set():
            await send(socket, '{"type":"stop"}')
        await asyncio.wait_for(gathering, 30)
        heard.code = socket.close_code


async def gather(socket: Any, heard: Heard) -> None:
    try:
        async for frame in socket:
            heard.events.append(json.loads(frame))
    except websockets.ConnectionClosedError:
        pass


async def send(socket: Any, frame: str | bytes) -> None:
    try:
        await socket.send(frame)
    except websockets.ConnectionClosed:
        pass


class Talker:
    """An OpenAI client that speaks, hears the reply out, and speaks again until it is closed."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.code: int | None = None

    async def talk(self, address: str, pcm: bytes) -> None:
        async with connect(f"ws://{address}/v1/realtime?model=m", max_size=None) as socket:
            self.client = Client(socket)
            try:
                await self.client.until("session.created")
                await self.client.update(**TRANSCRIBED)
                while True:
                    await self.client.speak(pcm)
                    await self.client.until("response.done", 30)
            except websockets.ConnectionClosed:
                self.code = socket.close_code

    def counts(self) -> Counter[str]:
        assert self.client
        return Counter(self.client.types())


@pytest.fixture(scope="module")
def unbroken() -> Iterator[str]:
    """The same engines in this process, which nobody stops."""
    there = models(transcriber=LocalReplicaSet(sim=sim_transcriber(**TRANSCRIBER)))
    with served(given=there) as address:
        yield address


def finals(unbroken: str, pcm: bytes, audio_ms: int) -> list[dict[str, Any]]:
    """Of that much of the speech, over and over."""
    looped = pcm * (audio_ms * 32 // len(pcm) + 1)
    sent: list[Any] = []
    for number, chunk in enumerate(chunks(looped[: audio_ms * 32])):
        sent += [chunk, 0.1] if number % 100 == 99 else [chunk]  # not too far ahead
    events, code = converse(unbroken, *sent)
    assert code == 1000 and not of("error", events)
    return of("final", events)


def assert_nothing_is_lost(heard: Heard, unbroken: str, pcm: bytes) -> None:
    assert not of("error", heard.events) and heard.events[-1]["type"] == "closed"
    assert words(heard.events) == words(finals(unbroken, pcm, heard.audio_ms)) != ""


def test_sigterm_loses_no_word_of_twenty_sessions_and_five_conversations(
    tmp_path: Path, talk: bytes, speech: bytes, unbroken: str
) -> None:
    hearing = [Heard() for _ in range(20)]
    talkers = [Talker() for _ in range(5)]
    leaving, staying = asyncio.Event(), asyncio.Event()

    async def story(server: Server) -> None:
        async with asyncio.TaskGroup() as tasks:
            for at, heard in enumerate(hearing):
                stop = leaving if at < 5 else staying
                tasks.create_task(speaking(server.address, talk, stop, heard))
            for talker in talkers:
                tasks.create_task(talker.talk(server.address, at_24k(speech)))
            await until(lambda: all(of("partial", heard.events) for heard in hearing))
            await until(lambda: all(it.counts()["response.created"] for it in talkers))
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await until(lambda: all(of("draining", heard.events) for heard in hearing), 2)
            await assert_refuses_all(server)
            leaving.set()
            await asyncio.to_thread(server.process.wait, 40)
            assert TIMEOUT_S < time.monotonic() - began < TIMEOUT_S + 12

    with running(tmp_path, {**SIM, "drain": {"timeout_s": TIMEOUT_S}}) as server:
        ours = server.descendants()
        asyncio.run(story(server))
        assert server.process.returncode == 0, server.log.read_text()
    assert not psutil.wait_procs(ours, timeout=5)[1]
    assert [heard.code for heard in hearing] == [1000] * 5 + [1012] * 15
    for heard in hearing:
        (notice,) = of("draining", heard.events)
        assert notice["deadline_ms"] == 6000 and notice["resume"]
        assert_nothing_is_lost(heard, unbroken, talk)
    for talker in talkers:
        counts = talker.counts()
        assert talker.code == 1012
        assert counts["input_audio_buffer.committed"] == counts[f"{TRANSCRIPTION}.completed"]
        assert counts["response.created"] == counts["response.done"] >= 2
        done = talker.client and talker.client.of("response.done")[-1]
        assert done and done["response"]["status"] == "completed"


async def assert_refuses_all(server: Server) -> None:
    """Not ready, and no new session: 503 with Retry-After."""
    async with httpx.AsyncClient(base_url=server.url, timeout=5) as client:
        answers = [
            await client.get("/v1/ready"),
            await client.post("/v1/audio/speech", json={"input": "Hi", "model": "m"}),
        ]
        assert (await client.get("/v1/health")).json()["status"] == "draining"
    for path in (PATH, "/ws", "/v1/realtime"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://{server.address}{path}")
        answers.append(refused.value.response)  # type: ignore[arg-type]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert all(answer.headers["Retry-After"] for answer in answers)


def test_the_second_signal_stops_at_once(tmp_path: Path, talk: bytes) -> None:
    async def story(server: Server) -> None:
        heard = Heard()
        speaks = asyncio.create_task(speaking(server.address, talk, asyncio.Event(), heard))
        await until(lambda: of("partial", heard.events))
        server.process.send_signal(signal.SIGINT)
        await until(lambda: of("draining", heard.events), 2)
        server.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(server.process.wait, 12)
        await speaks

    with running(tmp_path, {**SIM, "drain": {"timeout_s": 600}}) as server:
        ours = server.descendants()
        asyncio.run(story(server))
        assert server.process.returncode == 0 and "at once" in server.log.read_text()
    assert not psutil.wait_procs(ours, timeout=5)[1]


def test_a_job_that_runs_goes_back_to_the_queue(tmp_path: Path, talk: bytes) -> None:
    slow = {**TRANSCRIBER, "latency_ms": 3000.0}
    args = {**SIM, "transcriber": {"sim": slow}, "jobs": {"windows_at_once": 1, "poll_s": 0.2}}
    with running(tmp_path, args) as server:
        client = JobClient(server.address)
        id_ = client.submit(wav(talk * 10)).json()["id"]
        wait_for(lambda: client.job(id_)["state"] == "running", 30)
        stop(server, signal.SIGTERM)
        assert server.process.returncode == 0
    with sqlite3.connect(next((tmp_path / "data").rglob("voxray.db"))) as database:
        rows = database.execute("SELECT state, lease, losses, attempts FROM jobs").fetchall()
    assert rows == [("queued", None, 0, 0)]


HOLD_S = 125.0
"""Longer than HAProxy's processes live after a reload (120 s), and uvicorn in a replica that Serve
ends (30 s), if nobody changes that."""

UPDATE_S = 40.0

SCALING = {
    **SIM,
    "drain": {"timeout_s": 600},
    "ingress": {
        "scale": {
            "min_replicas": 1,
            "max_replicas": 2,
            "sessions_per_replica": 9,
            "upscale_delay_s": 0,
            "downscale_delay_s": 1,
        }
    },
}

UPDATE = """
import json, os, sys
from serve_app.cluster.environment import ONE_MACHINE, serve_environment
from serve_app.config import Config
address, args = sys.argv[1], json.loads(sys.argv[2])
os.environ.update(serve_environment(Config.model_validate(args), any_ports=True) | ONE_MACHINE)
os.environ["RAY_AUTH_MODE"] = "token"
import ray
from ray.serve import api
from serve_app.app import build
ray.init(address, log_to_driver=False)
api._run(build(args), _blocking=False, name="voxray", route_prefix="/")  # as `serve deploy`
"""


def test_sessions_outlast_a_scale_down_and_an_update(
    tmp_path: Path, talk: bytes, unbroken: str
) -> None:
    """On the replica that stays and on those that go, and every handshake meanwhile is answered."""
    first, later = [Heard() for _ in range(11)], [Heard() for _ in range(4)]
    going, over = asyncio.Event(), asyncio.Event()
    answers: Counter[int] = Counter()

    async def story(server: Server) -> None:
        async with asyncio.TaskGroup() as tasks:
            for at, heard in enumerate(first):
                stop = going if at else over
                tasks.create_task(speaking(server.address, talk, stop, heard))
            before = haproxies(server)
            await until(lambda: haproxies(server) - before, 60)  # it knows the second replica
            await asyncio.sleep(1)
            for heard in later:
                tasks.create_task(speaking(server.address, talk, over, heard))
            await until(lambda: all(of("partial", heard.events) for heard in later))
            knocking = tasks.create_task(knock(server, answers))
            going.set()
            await until(lambda: any(of("draining", heard.events) for heard in later), 60)
            told = time.monotonic()
            await asyncio.sleep(HOLD_S - UPDATE_S)
            stayed = [heard for heard in (first[0], *later) if not of("draining", heard.events)]
            assert first[0] in stayed and len(stayed) < 5
            await asyncio.to_thread(update, server)
            await until(lambda: all(of("draining", heard.events) for heard in stayed), 60)
            await asyncio.sleep(max(UPDATE_S - 5, HOLD_S + told - time.monotonic()))
            assert all(heard.code is None for heard in (first[0], *later))
            knocking.cancel()
            over.set()

    with running(tmp_path, SCALING) as server:
        asyncio.run(story(server))
        wait_for(lambda: len(server.pids("Ingress")) == 1, 60)
    for heard in first[1:]:
        assert_nothing_is_lost(heard, unbroken, talk)
    for heard in (*first, *later):
        assert heard.code == 1000 and not of("error", heard.events)
        assert_all_is_covered(heard, unbroken, talk)
    assert answers.keys() <= {101, 503} and answers[101] > 20 * answers[503], answers


def assert_all_is_covered(heard: Heard, unbroken: str, pcm: bytes) -> None:
    """The same utterances as without an update, with as many words. A VAD that takes over in the
    middle of speech may find its end a few frames off, and then the sim says other words."""
    theirs, ours = finals(unbroken, pcm, heard.audio_ms), of("final", heard.events)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert abs(one["start_ms"] - other["start_ms"]) <= 100
        assert abs(one["end_ms"] - other["end_ms"]) <= 100
        assert abs(len(one["words"]) - len(other["words"])) <= 1


def haproxies(server: Server) -> set[int]:
    return {process.pid for process in server.descendants() if process.name() == "haproxy"}


async def knock(server: Server, answers: Counter[int]) -> None:
    """Handshakes, one after the other, and how they are answered."""
    while True:
        try:
            async with connect(f"ws://{server.address}{PATH}"):
                answers[101] += 1
        except websockets.InvalidStatus as refused:
            assert refused.response.headers["Retry-After"]
            answers[refused.response.status_code] += 1
        await asyncio.sleep(0.1)


def update(server: Server) -> None:
    """Deploy another configuration on the running cluster, as `serve deploy` does."""
    args = {**SCALING, "limits": {"retry_after_s": 7}}
    args["storage"] = {"directory": str(server.log.parent / "data")}
    (raylet,) = [it for it in server.descendants() if it.name() == "raylet"]
    address = next(word for word in raylet.cmdline() if word.startswith("--gcs-address"))
    command = [sys.executable, "-c", UPDATE, address.partition("=")[2], json.dumps(args)]
    subprocess.run(command, check=True, timeout=120)
