import asyncio
import struct
from typing import Any

import pytest

from deployments.interfaces import (
    Edge,
    Endpoint,
    Hypothesis,
    Resume,
    Speech,
    SpeechOptions,
    Transition,
    VadInput,
    VadResult,
)
from deployments.vad import Vad
from serve_app.lanes.wire import Address, LaneConnection, LaneServer
from tests.fakes import FakeTranscriber


async def serve(model: Any, item: type) -> tuple[LaneServer, Address]:
    server = LaneServer(model, item)
    return server, await server.start("it", "127.0.0.1")


def test_a_vad_over_the_wire_hears_what_it_hears_at_home(speech: bytes) -> None:
    async def go() -> tuple[Transition, ...]:
        server, address = await serve(Vad(), VadInput)
        connection = await LaneConnection.open(address, VadResult)
        sending = asyncio.create_task(
            connection.exchange([VadInput(3, speech, Resume(0, False, Endpoint()))], [], 1)
        )
        (judged,) = await connection.receive()
        await sending
        connection.close()
        server.stop()
        assert judged.session == 3 and judged.until == len(speech) // 2
        return tuple(judged.transitions)

    assert [t.edge for t in asyncio.run(go())] == [Edge.START, Edge.END]


def test_a_transcriber_answers_in_its_own_time() -> None:
    async def go() -> None:
        fake = FakeTranscriber("hi there")
        server, address = await serve(fake, Speech)
        connection = await LaneConnection.open(address, Hypothesis)
        options = SpeechOptions("en", True, ("go",), None)
        sending = asyncio.create_task(
            connection.exchange([Speech(1, 0, b"1234", True, options)], [7], 5)
        )
        answers = [*await connection.receive(), *await connection.receive()]
        await sending
        assert [word.text for word in answers[0].words] == ["hi", "there"] and answers[0].final
        assert server.sessions() == 5
        assert fake.heard == [Speech(1, 0, b"1234", True, options)] and fake.left == [7]
        connection.close()
        server.stop()

    asyncio.run(go())


@pytest.mark.parametrize(
    "said",
    [
        b"wrong token",
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ],
)
def test_a_stranger_is_shown_the_door(said: bytes) -> None:
    async def go() -> None:
        server, address = await serve(FakeTranscriber(), Speech)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(struct.pack(">I", len(said)) + said)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        server.stop()

    asyncio.run(go())


def test_junk_after_the_token_ends_the_lane_and_harms_nobody_else() -> None:
    async def go() -> None:
        fake = FakeTranscriber()
        server, address = await serve(fake, Speech)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        for said in (address.token.encode(), b"\xc1junk"):
            writer.write(struct.pack(">I", len(said)) + said)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        good = await LaneConnection.open(address, Hypothesis)
        sending = asyncio.create_task(
            good.exchange([Speech(1, 0, b"12", False, SpeechOptions())], [], 1)
        )
        assert await good.receive() is not None
        await asyncio.wait_for(sending, 5)
        good.close()
        server.stop()

    asyncio.run(go())


def test_a_replica_that_dies_is_noticed_at_once() -> None:
    async def go() -> None:
        async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(die, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        connection = await LaneConnection.open(Address("it", "127.0.0.1", port, "t"), VadResult)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connection.receive(), 2)
        connection.close()
        server.close()

    asyncio.run(go())
