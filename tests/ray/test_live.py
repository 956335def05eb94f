"""The whole application on a real Ray cluster, started as a person starts it."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import websockets
from websockets.asyncio.client import connect

from loadtest.speech import wav
from tests.api.sockets.test_conversation_socket import Wire, audio
from tests.api.sockets.test_live_socket import PATH, chunks, converse, of, words
from tests.api.sockets.test_realtime import TRANSCRIBED, Client, at_24k, play
from tests.ports import free_port
from tests.readme import commands, run_shell
from tests.server import Server, running, stop, voxray
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TCP_PORT = free_port()
PACE_S = 0.04
"""Between chunks of 100 ms: faster than speech, yet an utterance lasts while its replica dies."""
FAST = {"upscale_delay_s": 0, "downscale_delay_s": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Sim engines; two of everything, so that nothing depends on one replica's memory."""
    two = {"scale": {"min_replicas": 2, "max_replicas": 2}}
    scaling = {"min_replicas": 2, "max_replicas": 3, "sessions_per_replica": 8, **FAST}
    args = {
        "profile": "sim",
        "ingress": two,
        "vad": two,
        "transcriber": {"scale": scaling},
        "chat": two,
        "speaker": two,
        "tcp": {"port": TCP_PORT},
        "limits": {"max_sessions": 20},
    }
    with running(tmp_path_factory.mktemp("sim"), args) as started:
        yield started


def test_words_come_back_through_everything(server: Server, speech: bytes) -> None:
    events, code = converse(server.address, *chunks(speech))
    assert words(events) and of("final", events)[0]["engine"] == "sim" and code == 1000
    again, _ = converse(server.address, *chunks(speech, 250))
    assert words(again) == words(events)
    answer = httpx.post(f"{server.url}/v1/transcribe", content=wav(speech), timeout=30)
    assert answer.json()["text"] == words(events)
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_a_spoken_conversation_through_everything(server: Server, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(**TRANSCRIBED)
        await client.speak(at_24k(speech))
        await client.until("rate_limits.updated")

    client = play(server.address, story)
    done = client.of("response.done")[0]["response"]
    assert done["status"] == "completed" and client.of("response.output_audio.delta")
    told = httpx.get(f"{server.url}/speech-to-speech/metrics", timeout=20).json()
    assert told["replies"]["completed"] >= 1 and told["success_rate"] == 1.0
    assert told["latency_ms"]["max"] > 0 and told["made"]["chat"]["running"] == 0
    stages = httpx.get(f"{server.url}/speech-to-speech/performance", timeout=20).json()["stages"]
    assert stages["vad_ms"]["p50"] >= 300 and stages["overhead_ms"]["count"] >= 1


def test_a_client_secret_made_by_one_ingress_opens_the_other(server: Server) -> None:
    async def opens(secret: str) -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"ws://{server.address}/v1/realtime"
        sockets = [await connect(url, additional_headers=headers) for _ in range(6)]
        for socket in sockets:  # HAProxy deals them out to both
            assert json.loads(await socket.recv())["session"]["instructions"] == "Sing."
            await socket.close()

    body = {"session": {"type": "realtime", "instructions": "Sing."}}
    secret = httpx.post(f"{server.url}/v1/realtime/client_secrets", json=body).json()
    asyncio.run(opens(secret["value"]))


def test_both_ingresses_share_the_tcp_port(server: Server, speech: bytes) -> None:
    wires = [Wire(TCP_PORT) for _ in range(8)]
    for wire in wires:
        wire.send(audio(speech, mode="transcribe"))
    assert all((wire.receive() or {})["transcription"] for wire in wires)
    for wire in wires:
        wire.socket.close()
    listening = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (TCP_PORT,)
    }
    assert listening == set(server.pids("Ingress"))


@pytest.mark.parametrize("deployment", ["Chat", "Speaker"])
def test_a_reply_goes_on_or_fails_plainly_when_its_replica_dies(
    server: Server, speech: bytes, deployment: str
) -> None:
    async def story(client: Client) -> None:
        await client.update()
        victim = server.pids(deployment)[0]
        os.kill(victim, signal.SIGKILL)
        ended = []
        for _ in range(3):
            await client.speak(at_24k(speech))
            ended.append((await client.until("response.done", 30))["response"]["status"])
        assert set(ended) <= {"completed", "failed"}
        assert ended[1:] == ["completed"] * 2, "the one left has taken over"

    play(server.address, story)
    wait_for(lambda: len(server.pids(deployment)) == 2, 60)


def test_silence_produces_no_words(server: Server) -> None:
    events, _ = converse(server.address, *chunks(bytes(64_000)))
    assert [event["type"] for event in events] == ["session", "closed"]


@pytest.fixture(scope="module")
def unbroken(server: Server, talk: bytes) -> str:
    """What is heard when nothing dies."""
    events, _ = converse(server.address, *chunks(talk))
    return str(words(events))


@pytest.mark.parametrize("deployment", ["Transcriber", "Vad"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_replica_lost_in_mid_utterance_loses_no_word(
    server: Server, talk: bytes, unbroken: str, deployment: str, how: signal.Signals
) -> None:
    victims = server.pids(deployment)
    assert len(victims) >= 2

    async def go() -> list[list[dict[str, Any]]]:
        sockets = [await connect(f"ws://{server.address}{PATH}") for _ in range(6)]
        gathering = [asyncio.create_task(gather(socket)) for socket in sockets]
        for number, chunk in enumerate(chunks(talk)):
            if number == 20:  # in the middle of the first sentence
                os.kill(victims[0], how)
            for socket in sockets:
                await socket.send(chunk)
            await asyncio.sleep(PACE_S)
        for socket in sockets:
            await socket.send('{"type":"stop"}')
        return await asyncio.gather(*gathering)

    async def gather(socket: Any) -> list[dict[str, Any]]:
        return [json.loads(frame) async for frame in socket]

    try:
        for events in asyncio.run(asyncio.wait_for(go(), 90)):
            assert not of("error", events), "the client sees no error"
            assert words(events) == unbroken
    finally:
        if psutil.pid_exists(victims[0]):
            os.kill(victims[0], signal.SIGKILL)
    wait_for(lambda: len(alive(server, deployment, victims[0])) >= 2, 60)


def alive(server: Server, deployment: str, but: int) -> list[int]:
    return [pid for pid in server.pids(deployment) if pid != but]


def test_sessions_scale_the_transcriber_up_and_back_down(server: Server) -> None:
    async def hold() -> None:
        sockets = [await connect(f"ws://{server.address}{PATH}") for _ in range(22)]
        for socket in sockets:
            await socket.send(bytes(3200))
        await asyncio.to_thread(wait_for, lambda: len(server.pids("Transcriber")) == 3, 60)
        for socket in sockets:
            await socket.close()

    asyncio.run(hold())
    wait_for(lambda: len(server.pids("Transcriber")) == 2, 90)


def test_overload_is_refused_honestly_and_harms_nobody(server: Server, speech: bytes) -> None:
    async def go() -> None:
        open_, refused = [], []
        for _ in range(60):
            began = time.monotonic()
            try:
                open_.append(await connect(f"ws://{server.address}{PATH}"))
            except websockets.InvalidStatus as error:
                refused.append((error.response, time.monotonic() - began))
        assert 20 <= len(open_) <= 40 and len(refused) == 60 - len(open_)
        assert all(answer.status_code == 503 for answer, _ in refused)
        assert all(answer.headers["Retry-After"] for answer, _ in refused)
        for chunk in chunks(speech):
            await open_[0].send(chunk)
        await open_[0].send('{"type":"stop"}')
        events = [json.loads(frame) async for frame in open_[0]]
        assert words(events)
        for socket in open_[1:]:
            await socket.close()

    asyncio.run(go())
    wait_for(lambda: server.get("/v1/health")["active_sessions"] == 0, 5)


def test_a_client_that_vanishes_is_gone_within_two_seconds(server: Server) -> None:
    async def vanish() -> None:
        for _ in range(10):
            socket = await connect(f"ws://{server.address}{PATH}")
            await socket.send(bytes(3200))
            socket.transport.abort()

    asyncio.run(vanish())
    wait_for(lambda: server.get("/v1/health")["active_sessions"] == 0, 2)


NAMES = {
    "voxray_http_requests_total",
    "voxray_http_request_duration_seconds_bucket",
    "voxray_final_latency_seconds_count",
    "voxray_sessions_total",
    "voxray_sessions_active",
    "voxray_lanes",
    "voxray_jobs",
    "voxray_model_sessions",
    "voxray_model_output_total",
}


def prometheus() -> dict[str, dict[str, float]]:
    """Values by metric and series, from the pages of all of Ray's endpoints."""
    found = json.loads(Path("/tmp/ray/prom_metrics_service_discovery.json").read_text())
    targets = [target for group in found for target in group["targets"]]
    samples: dict[str, dict[str, float]] = {}
    for target in targets:
        for line in httpx.get(f"http://{target}/metrics").text.splitlines():
            if line.startswith("ray_voxray_"):
                name, _, rest = line.removeprefix("ray_").partition("{")
                labels, _, value = rest.rpartition("} ")
                samples.setdefault(name, {})[labels] = float(value.split()[0])
    return samples


def test_metrics_speak_for_all_replicas_and_prometheus_has_the_same(server: Server) -> None:
    metrics = server.get("/v1/metrics")
    assert metrics["ingress_replicas"] == 2 and 0 < metrics["error_rate"] <= 1
    live = metrics["live"]
    assert live["total_sessions"] > 0 and live["refused_sessions"] > 0

    def tell_the_same() -> bool:
        told = prometheus()
        sums = {name: sum(series.values()) for name, series in told.items()}
        shown = server.get("/v1/metrics")
        return (
            NAMES <= told.keys()
            and sums["voxray_sessions_total"] == shown["live"]["total_sessions"]
            and sums["voxray_utterances_total"] == shown["live"]["utterances"]
            and sum(n for it, n in told["voxray_replicas"].items() if 'deployment="Ingress"' in it)
            == shown["ingress_replicas"]
        )

    wait_for(tell_the_same, 40)


def test_status_says_what_runs(server: Server) -> None:
    status = server.get("/v1/status")
    assert {it["kind"] for it in status["engines"]} == {
        *("transcriber", "chat", "speaker", "diarizer")
    }
    assert all(it["state"] == "warm" for it in status["engines"])
    assert status["deployments"].keys() == {
        *("Ingress", "Vad", "Transcriber", "Chat", "Speaker", "Diarizer", "Worker")
    }
    assert status["deployments"]["Ingress"] == {"status": "HEALTHY", "replicas": {"RUNNING": 2}}
    assert status["nodes"][0]["memory"]["used_bytes"] > 0 and status["jobs"]["running"] == 0


def test_a_changed_setting_reaches_every_ingress(server: Server) -> None:
    async def told() -> set[int]:
        sockets = [await connect(f"ws://{server.address}{PATH}") for _ in range(8)]
        hellos = [json.loads(await socket.recv()) for socket in sockets]
        for socket in sockets:
            await socket.close()
        return {hello["limits"]["max_buffered_audio_ms"] for hello in hellos}

    for seconds in (33, 60):
        body = {"limits": {"max_buffered_audio_s": seconds}}
        answer = httpx.post(f"{server.url}/config/update", json=body, timeout=20)
        assert answer.json()["limits"]["max_buffered_audio_s"] == seconds
        assert asyncio.run(told()) == {seconds * 1000}


def test_locust_shows_the_shape_of_a_load(server: Server, tmp_path: Path) -> None:
    (command,) = commands("docs/capacity.md")
    late = 3  # what it exits with on a machine too busy to tell
    shown = run_shell(f"{command} --only-summary 2>&1", server, tmp_path, (0, late))
    assert re.search(r"WS\s+chunk\s+\d", shown) and "late at p99" in shown


def test_status_shows_deployments(server: Server) -> None:
    shown = voxray("status", "--server", server.url)
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("Ingress", "2 RUNNING", "Transcriber", "HEALTHY"))


def test_everything_listens_on_loopback_only(server: Server) -> None:
    ours = {process.pid for process in server.descendants()}
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.pid in ours and connection.laddr:
            process = psutil.Process(connection.pid)
            if process.name() == "haproxy" or connection.laddr.port in (
                8265,
                *range(30_000, 31_000),
            ):
                assert connection.laddr.ip == "127.0.0.1", process.name()


def test_what_one_machine_does_not_need_does_not_run(server: Server) -> None:
    commands = [" ".join(process.cmdline()) for process in server.descendants()]
    assert any("gcs_server" in command for command in commands)
    for unused in ("log_monitor.py", "autoscaler/_private/monitor.py", "dashboard/dashboard.py"):
        assert not any(unused in command for command in commands), unused


def test_replicas_listen_on_loopback_only(server: Server) -> None:
    replicas = {p.pid for p in server.descendants() if p.name().startswith("ray::Serve")}
    listening = {
        it.laddr.ip
        for it in psutil.net_connections("tcp")
        if it.status == psutil.CONN_LISTEN and it.pid in replicas and it.laddr
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_second_server_says_that_the_port_is_taken_and_by_what(server: Server) -> None:
    second = voxray("run", "--port", str(server.port))
    assert second.returncode == 1
    assert f"port {server.port}" in second.stderr and "a running voxray" in second.stderr


def test_ctrl_c_leaves_no_process_behind(server: Server) -> None:
    ours = server.descendants()
    assert any("haproxy" in process.name() for process in ours)
    stop(server)
    assert server.process.returncode == 0
    _, left = psutil.wait_procs(ours, timeout=5)
    assert not left
