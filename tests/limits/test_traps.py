"""What goes wrong in the quotas of other gateways; places that are lost are in `test_doors`,
replicas that let in too much in `test_sharing`, and refusals that cost something in both."""

import asyncio
import json
from collections.abc import Callable

import httpx2 as httpx
import pytest
import socketio
from websockets.sync.client import connect

from tests.api.sockets.test_conversation_socket import audio
from tests.api.sockets.test_realtime import Client, at_24k, play
from tests.fakes import served
from tests.limits.test_doors import LIVE, TALK, limits
from tests.waiting import wait_for

PCM = bytes(32_000 * 2 + 19_200)
"""2.6 s: the last of it is shorter than what is counted at a time."""

DAY_S = 1000
LEFT = str(int(DAY_S - len(PCM) / 32_000))


def left(address: str) -> str:
    answer = httpx.get(f"http://{address}/v1/models")
    return str(answer.headers["x-ratelimit-remaining-audio-seconds"])


def stopped(address: str) -> None:
    with connect(f"ws://{address}{LIVE}") as socket:
        socket.send(PCM)
        socket.send('{"type":"stop"}')
        for _ in socket:
            pass


def vanished(address: str) -> None:
    """A disconnect is not free."""
    socket = connect(f"ws://{address}{LIVE}")
    socket.send(PCM)
    socket.ping().wait(5)
    socket.socket.close()


def chunked(address: str) -> None:
    httpx.post(f"http://{address}/transcribe/stream", content=PCM, timeout=20)


def realtime(address: str) -> None:
    async def story(client: Client) -> None:
        await client.speak(at_24k(PCM))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")

    play(address, story)


def talk(address: str) -> None:
    with connect(f"ws://{address}{TALK}", max_size=None) as socket:
        socket.send(json.dumps(audio(PCM, speak=False)))
        while json.loads(socket.recv(20))["type"] not in ("conversation_complete", "error"):
            pass


def socket_io(address: str) -> None:
    async def go() -> None:
        client = socketio.AsyncClient(reconnection=False)
        ended = asyncio.Event()
        client.on("transcription:end", lambda _: ended.set())
        await client.connect(f"http://{address}", socketio_path="/socket")
        await client.emit("audio:chunk", PCM)
        await client.emit("audio:stop")
        await asyncio.wait_for(ended.wait(), 20)
        await client.disconnect()

    asyncio.run(go())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("door", [stopped, vanished, chunked, realtime, talk, socket_io])
def test_all_audio_counts_at_every_door_to_its_end(door: Callable[[str], None]) -> None:
    with served(limits(audio_seconds_per_day=DAY_S)) as address:
        door(address)
        wait_for(lambda: left(address) == LEFT)


def test_a_refused_handshake_uses_no_audio_and_no_place() -> None:
    with (
        served(limits(sessions=1, audio_seconds_per_day=DAY_S)) as address,
        connect(f"ws://{address}{LIVE}"),
    ):
        for _ in range(5):
            with pytest.raises(Exception, match="429"), connect(f"ws://{address}{LIVE}"):
                pass
        assert left(address) == str(DAY_S)
