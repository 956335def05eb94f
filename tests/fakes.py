"""What runs without Ray: engines and the application in this process, behind the real interfaces.

`models(...)` makes the engines, simulated unless given; `served(config, models)` puts the whole
application on a free port; `working(config)` runs a worker for jobs beside it.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn

from deployments.chat import Chat
from deployments.chat.sim import SimChat
from deployments.diarizer import Diarizer
from deployments.diarizer.sim import SimDiarizer
from deployments.fairness import Payer
from deployments.interfaces import Hypothesis, Speech, Word
from deployments.speaker import Speaker
from deployments.speaker.sim import SimSpeaker
from deployments.transcriber import Transcriber
from deployments.transcriber.sim import SimTranscriber
from deployments.vad import Vad
from serve_app.admission.admission import Admission
from serve_app.admission.budget import Shares
from serve_app.api import Backend, Drain, create_app
from serve_app.config import Config
from serve_app.config.admission import AdmissionConfig
from serve_app.jobs.worker import Worker
from serve_app.lanes.load import Load
from serve_app.live.options import EngineInfo, Engines
from serve_app.observability.metrics import Metrics
from serve_app.security.signing import SigningKeys
from tests.waiting import wait_for


class FakeTranscriber:
    """Says `text` for every utterance, unless `mute`; what it was given is in `heard`."""

    def __init__(self, text: str = "hello", mute: bool = False) -> None:
        self.words = tuple(Word(word, 0, 1600, 0.5) for word in text.split())
        self.mute = mute
        self.heard: list[Speech] = []
        self.left: list[int] = []
        self._answers: asyncio.Queue[list[Hypothesis]] = asyncio.Queue()

    async def listen(self, lane: str) -> Any:
        yield []
        while True:
            yield await self._answers.get()

    async def exchange(self, lane: str, batch: Sequence[Speech], left: Sequence[int]) -> list[Any]:
        self.heard += batch
        self.left += left
        if not self.mute:
            self._answers.put_nowait([self._answer(piece) for piece in batch])
        return []

    def waiting(self) -> int:
        return 0

    def pay(self, lane: str, payers: Any) -> None:
        """It has no order."""

    def stalled(self) -> bool:
        return False

    def _answer(self, piece: Speech) -> Hypothesis:
        until = len(piece.pcm) // 2
        return Hypothesis(piece.session, piece.utterance, until, self.words, piece.ended)


class LocalConnection:
    """`lanes.Connection` to a model in this process; a `frozen` one takes nothing any more."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lane = f"lane-{id(self)}"
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._pushing: asyncio.Task[None] | None = None
        self.exchanges = 0
        self.load = Load()
        self.level = self.announced = 0
        self.payers: dict[int, Payer] = {}
        self.dead = False
        self.frozen = False

    async def open(self) -> "LocalConnection":
        listening = self._model.listen(self._lane)
        await anext(listening)

        async def push() -> None:
            async for answers in listening:
                self._answers.put_nowait(answers)

        self._pushing = asyncio.create_task(push())
        return self

    async def exchange(self, batch: Sequence[Any], left: Sequence[int], sessions: int) -> None:
        if self.dead:
            raise ConnectionResetError
        if self.frozen:
            await asyncio.Event().wait()
        self.exchanges += 1
        payers, self.payers = self.payers, {}
        self._model.pay(self._lane, payers)
        if answers := await self._model.exchange(self._lane, batch, left):
            self._answers.put_nowait(answers)

    async def receive(self) -> Any:
        """Answers, or nothing as a sign of life."""
        waited = asyncio.create_task(self._answers.get())
        try:
            while not (await asyncio.wait({waited}, timeout=0.02))[0]:
                if not self.frozen:
                    return []
            if self.dead:
                raise ConnectionResetError
            return waited.result()
        finally:
            waited.cancel()

    def kill(self) -> None:
        """As a replica that dies: what waits and what comes fails with `ConnectionResetError`."""
        self.dead = True
        self._answers.put_nowait([])

    def close(self) -> None:
        if self._pushing:
            self._pushing.cancel()


class LocalReplicaSet:
    """`lanes.ReplicaSet` of models in this process, by name: `LocalReplicaSet(one=..., two=...)`.

    Tests may add and take away `models`, and kill or freeze `connections`.
    """

    def __init__(self, **models: Any) -> None:
        self.models = models
        self.connections: dict[str, LocalConnection] = {}

    async def replicas(self) -> list[str]:
        return list(self.models)

    async def connect(self, name: str) -> LocalConnection:
        model = self.models[name]
        if hasattr(model, "start"):
            await model.start()
        connection = self.connections[name] = await LocalConnection(model).open()
        return connection


def admitting_all(metrics: Metrics | None = None) -> Admission:
    """Lets everybody in, however busy the machine of the tests is."""
    config = AdmissionConfig(enabled=False)
    return Admission(config, Shares(0.0, 0.0, 0.0), metrics or Metrics(), lambda: 5)


def not_measured(config: Config) -> Config:
    """Without admission by measurement, unless the test is about that."""
    if "admission" in config.model_fields_set:
        return config
    return config.model_copy(update={"admission": AdmissionConfig(enabled=False)})


def sim_transcriber(**args: Any) -> Transcriber:
    """The simulated recogniser, quick and without errors unless `args` say otherwise."""
    return Transcriber(
        SimTranscriber(
            **{"latency_ms": 5, "words_per_second": 2.5, "error_rate": 0.0, "seed": 0, **args}
        )
    )


def models(**given: Any) -> Backend:
    """Models in this process: a real VAD and simulated engines, unless given."""
    speaker = Speaker(given.get("speaker_engine") or SimSpeaker(5, 10.0, 50.0))
    chat = Chat(given.get("chat_engine") or SimChat(5, 1, 8))

    options = {
        "transcriber": SimTranscriber.options,
        "chat": SimChat.options,
        "speaker": SimSpeaker.options,
        **given.get("options", {}),
    }

    async def generated() -> dict[str, dict[str, int]]:
        return {"chat": chat.stats(), "speaker": speaker.stats()}

    name, revises = given.get("engine", "sim"), given.get("revises", False)

    return Backend(
        vad=given.get("vad") or LocalReplicaSet(vad=Vad()),
        transcriber=given.get("transcriber") or LocalReplicaSet(sim=sim_transcriber()),
        chat=LocalReplicaSet(sim=chat),
        speaker=LocalReplicaSet(sim=speaker),
        diarizer=given.get("diarizer") or LocalReplicaSet(sim=Diarizer(SimDiarizer(5.0, 2))),
        engines=Engines(
            EngineInfo(name, options["transcriber"], given.get("languages"), revises),
            EngineInfo("sim", options["chat"]),
            EngineInfo("sim", options["speaker"]),
            EngineInfo("sim"),
        ),
        voices=speaker.voices,
        generated=generated,
        keys=given.get("keys") or SigningKeys([secrets.token_bytes(32)]),
    )


async def _stop(there: Backend) -> None:
    """Engines may own processes."""
    for replica_set in (there.vad, there.transcriber, there.chat, there.speaker, there.diarizer):
        for model in getattr(replica_set, "models", {}).values():
            if hasattr(model, "stop"):
                await model.stop()


@contextmanager
def working(config: Config, **given: Any) -> Iterator[Worker]:
    """A worker for jobs on another thread, with engines in this process."""
    import threading

    there = models(**given)
    runner = asyncio.Runner()
    worker = runner.run(_made(config, there))
    task = runner.get_loop().create_task(worker.run())

    async def work() -> None:
        await asyncio.wait([task])
        await _stop(there)
        if not task.cancelled():
            task.result()

    thread = threading.Thread(target=runner.run, args=(work(),))
    thread.start()
    try:
        yield worker
    finally:
        runner.get_loop().call_soon_threadsafe(task.cancel)
        thread.join(20)
        runner.close()


async def _made(config: Config, there: Backend) -> Worker:
    return Worker(config.worker, there.transcriber, there.diarizer)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, there: Backend) -> None:
        super().__init__(config)
        self._there = there

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until it is to exit; its engines end with it."""
        self.loop = asyncio.get_running_loop()
        try:
            await super().serve(sockets)
        finally:
            await _stop(self._there)

    def install_signal_handlers(self) -> None:
        """A thread may not."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving(NamedTuple):
    """The application on a real socket; it can be told to drain."""

    address: str
    drain: Drain
    begin_drain: Callable[[], object]
    call: Callable[..., object]
    """Calls something on the server's loop, soon."""


@contextmanager
def served(
    config: Config | None = None,
    given: Backend | None = None,
) -> Iterator[str]:
    """The application on a real socket, with real WebSockets: `host:port`."""
    with serving(config, given) as here:
        yield here.address


@contextmanager
def serving(
    config: Config | None = None,
    given: Backend | None = None,
) -> Iterator[Serving]:
    import threading

    there, config = given or models(), not_measured(config or Config(profile="sim"))
    drain = Drain(config.drain.timeout_s)
    app = create_app(there, config, drain=drain)
    options = uvicorn.Config(app, port=0, log_level="critical", ws="auto", loop="uvloop")
    server = _Server(options, there)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Serving(
            f"127.0.0.1:{port}",
            drain,
            lambda: server.loop.call_soon_threadsafe(drain.begin),
            server.loop.call_soon_threadsafe,
        )
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"
