import asyncio
import hashlib
import json
import operator
import struct
from typing import Any

import msgspec
import pytest

from deployments.fairness import Payer
from deployments.framing import frame
from deployments.interfaces import (
    AudioDelta,
    ChatDelta,
    ChatRequest,
    DiarizationInput,
    DiarizationResult,
    Edge,
    Endpoint,
    Hypothesis,
    Resume,
    Speech,
    SpeechOptions,
    SpeechRequest,
    Transition,
    VadInput,
    VadResult,
)
from deployments.vad import Vad
from serve_app.lanes import wire
from serve_app.lanes.load import Load
from serve_app.lanes.wire import (
    SPOKEN,
    Address,
    Down,
    Hello,
    LaneConnection,
    LaneServer,
    Up,
    Versions,
    VersionsDiffer,
    Welcome,
)
from tests.fakes import FakeTranscriber
from tests.waiting import unchanged


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


def test_a_level_that_one_ingress_announces_reaches_the_others() -> None:
    async def go() -> None:
        server, address = await serve(Vad(), VadInput)
        ingress = await LaneConnection.open(address, VadResult)
        worker = await LaneConnection.open(address, VadResult)

        async def told(level: int) -> None:
            while worker.level != level:
                await worker.receive()

        ingress.announced = 3
        sending = asyncio.create_task(ingress.exchange([], [], 1))
        await asyncio.wait_for(told(3), 30)
        ingress.close()
        await asyncio.wait_for(told(0), 30)
        sending.cancel()
        worker.close()
        server.stop()

    asyncio.run(go())


@pytest.mark.parametrize(
    "said",
    [
        b"wrong token",
        msgspec.msgpack.encode(Hello(SPOKEN, "wrong token")),
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
        for said in (msgspec.msgpack.encode(Hello(SPOKEN, address.token)), b"\xc1junk"):
            writer.write(struct.pack(">I", len(said)) + said)
        welcome = msgspec.msgpack.encode(Welcome(SPOKEN))
        assert await asyncio.wait_for(reader.read(), 10) == frame(welcome)
        writer.close()
        good = await LaneConnection.open(address, Hypothesis)
        sending = asyncio.create_task(
            good.exchange([Speech(1, 0, b"12", False, SpeechOptions())], [], 1)
        )
        assert await good.receive() is not None
        await asyncio.wait_for(sending, 30)
        good.close()
        server.stop()

    asyncio.run(go())


def test_a_replica_that_dies_before_it_answers_is_noticed_at_once() -> None:
    async def go() -> None:
        async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(die, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            address = Address("it", "127.0.0.1", port, "t")
            await asyncio.wait_for(LaneConnection.open(address, VadResult), 2)
        server.close()

    asyncio.run(go())


def test_a_replica_that_dies_is_noticed_at_once() -> None:
    async def go() -> None:
        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(msgspec.msgpack.encode(Welcome(SPOKEN))))
            await reader.read(1)
            writer.transport.abort()

        server = await asyncio.start_server(die, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        connection = await LaneConnection.open(Address("it", "127.0.0.1", port, "t"), VadResult)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connection.receive(), 2)
        connection.close()
        server.close()

    asyncio.run(go())


class Working(FakeTranscriber):
    """Needs until `done` for a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    async def exchange(self, lane: str, batch: Any, left: Any) -> list[Any]:
        await self.done.wait()
        return await super().exchange(lane, batch, left)

    def waiting(self) -> int:
        return 3


def test_a_replica_reports_its_load_while_it_works_and_when_it_has_nothing_to_do() -> None:
    async def go() -> None:
        model = Working()
        server, address = await serve(model, Speech)
        connection = await LaneConnection.open(address, Hypothesis)

        async def reported(busy: bool) -> None:
            while connection.load.waiting != 3 or (connection.load.busy > 0.9) is not busy:
                await connection.receive()

        sending = asyncio.create_task(connection.exchange([], [], 1))
        await asyncio.wait_for(reported(busy=True), 30)
        assert not sending.done()
        model.done.set()
        await asyncio.wait_for(reported(busy=False), 30)
        await sending
        connection.close()
        server.stop()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("ingress", "replica", "lane"),
    [
        ((1, 1), (1, 2), True),  # the replica is newer
        ((2, 3), (1, 2), True),  # the ingress is
        ((1, 1), (2, 2), False),
        ((3, 4), (1, 2), False),
    ],
)
def test_two_versions_of_voxray_meet(
    ingress: tuple[int, int], replica: tuple[int, int], lane: bool
) -> None:
    async def go() -> None:
        server = LaneServer(FakeTranscriber("hi"), Speech, Versions(*replica))
        address = await server.start("it", "127.0.0.1")
        opening = LaneConnection.open(address, Hypothesis, Versions(*ingress))
        if lane:
            connection = await opening
            piece = Speech(1, 0, b"12", False, SpeechOptions())
            sending = asyncio.create_task(connection.exchange([piece], [], 1))
            while not await asyncio.wait_for(connection.receive(), 30):
                continue
            await sending
            connection.close()
        else:
            with pytest.raises(VersionsDiffer):
                await opening
        server.stop()

    asyncio.run(go())


def test_a_replica_is_found_by_an_ingress_that_knows_less_of_its_address() -> None:
    address = Address("it", "127.0.0.1", 1, "t")
    assert Address.of({**address._asdict(), "of a later version": 1}) == address


def test_an_older_reader_ignores_fields_that_a_newer_writer_added() -> None:
    class Older(msgspec.Struct, array_like=True):
        took: bool
        answers: list[Hypothesis]

    down: Down[Hypothesis] = Down(True, [], Load(0.5, 1))
    read = msgspec.msgpack.Decoder(Older).decode(msgspec.msgpack.encode(down))
    assert read == Older(True, [])


def test_a_replica_knows_whose_each_stream_is_and_an_older_ingress_does_not_say() -> None:
    class Older(msgspec.Struct, array_like=True):
        batch: list[Speech]
        left: list[int]
        sessions: int
        level: int

    up: Up[Speech] = Up([], [], 1, 0, {7: Payer("acme", 2.0)})
    decoder = msgspec.msgpack.Decoder(Up[Speech])
    assert decoder.decode(msgspec.msgpack.encode(up)) == up
    assert msgspec.msgpack.Decoder(Older).decode(msgspec.msgpack.encode(up)).sessions == 1
    assert decoder.decode(msgspec.msgpack.encode(Older([], [], 1, 0))).payers == {}

    class Payers(FakeTranscriber):
        def pay(self, lane: str, payers: Any) -> None:
            paid.update(payers)

    async def go() -> None:
        server, address = await serve(Payers("hi"), Speech)
        connection = await LaneConnection.open(address, Hypothesis)
        connection.payers[7] = Payer("acme", 2.0)
        piece = Speech(7, 0, b"12", False, SpeechOptions())
        sending = asyncio.create_task(connection.exchange([piece], [], 1))
        while not await asyncio.wait_for(connection.receive(), 30):
            continue
        await sending
        assert connection.payers == {}, "each is told once"
        connection.close()
        server.stop()

    paid: dict[int, Payer] = {}
    asyncio.run(go())
    assert paid == {7: Payer("acme", 2.0)}


VERSION_1 = "7862aa6bbd31f25d"
"""With `payers`, a last field with a default, which an older reader ignores."""


def test_version_1_of_the_protocol_stays_as_it_is() -> None:
    """When this fails, another version of voxray cannot read what this one writes. Make it a new
    version in `SPOKEN`, and keep reading and writing the old one."""
    answers = (VadResult, Hypothesis, ChatDelta, AudioDelta, DiarizationResult)
    items = (VadInput, Speech, ChatRequest, SpeechRequest, DiarizationInput)
    frames: list[Any] = [Hello, Welcome]
    frames += [operator.getitem(Down, it) for it in answers]  # type: ignore[call-overload]
    frames += [operator.getitem(Up, it) for it in items]  # type: ignore[call-overload]
    _, shapes = msgspec.json.schema_components(frames)
    told = ("title", "description")  # what has no meaning on the wire
    shape = json.dumps(without(shapes, told), sort_keys=True)
    assert hashlib.sha256(shape.encode()).hexdigest()[:16] == VERSION_1


def without(tree: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(tree, dict):
        return {key: without(it, keys) for key, it in tree.items() if key not in keys}
    return [without(it, keys) for it in tree] if isinstance(tree, list) else tree


class Stuck(FakeTranscriber):
    """Takes no batch, or takes it and owes the answers for ever."""

    def __init__(self, takes: bool) -> None:
        super().__init__(mute=True)
        self.takes = takes

    async def exchange(self, lane: str, batch: Any, left: Any) -> list[Any]:
        if not self.takes:
            await asyncio.Event().wait()
        return await super().exchange(lane, batch, left)

    def stalled(self) -> bool:
        return self.takes and bool(self.heard)


@pytest.mark.parametrize("takes", [True, False])
def test_an_engine_that_is_stuck_in_a_live_process_is_found(
    takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STALL_S", 0.2)

    async def go() -> None:
        server, address = await serve(Stuck(takes), Speech)
        found = asyncio.create_task(server.wait_stalled())
        assert await unchanged(found.done, 0.7) is False, "it has nothing to do"
        connection = await LaneConnection.open(address, Hypothesis)
        piece = Speech(1, 0, b"12", True, SpeechOptions())
        sending = asyncio.create_task(connection.exchange([piece], [], 1))
        assert await asyncio.wait_for(found, 30)
        sending.cancel()
        connection.close()
        server.stop()

    asyncio.run(go())


def test_an_engine_that_is_slow_and_answers_now_and_then_is_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "STALL_S", 0.5)

    class Slow(Stuck):
        def answer(self) -> None:
            self._answers.put_nowait([Hypothesis(1, 0, 1, (), False)])

    async def go() -> None:
        model = Slow(takes=False)
        server, address = await serve(model, Speech)
        connection = await LaneConnection.open(address, Hypothesis)
        sending = asyncio.create_task(connection.exchange([], [], 1))
        found = asyncio.create_task(server.wait_stalled())
        for _ in range(15):
            model.answer()
            await asyncio.sleep(0.1)
        assert not found.done()
        await asyncio.wait_for(found, 30)
        sending.cancel()
        connection.close()
        server.stop()

    asyncio.run(go())
