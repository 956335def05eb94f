"""Recordings wait while live speech needs everything."""

import asyncio

import pytest

from deployments.interfaces import Speech, SpeechOptions
from serve_app.admission.pause import Pause
from serve_app.config import Config
from serve_app.config.jobs import StorageConfig
from serve_app.errors import ClientError
from serve_app.jobs.recogniser import Recogniser
from serve_app.jobs.worker import Worker
from serve_app.lanes.pool import LanePool, LaneTimings
from tests.fakes import LocalReplicaSet, models, sim_transcriber
from tests.waiting import unchanged, until


def test_a_window_is_sent_once_the_pause_is_over() -> None:
    async def go() -> None:
        pause = Pause()
        lanes = LanePool(LocalReplicaSet(sim=sim_transcriber()), LaneTimings(0.005), Speech)
        running = asyncio.create_task(lanes.run())
        recogniser = Recogniser(lanes, 2, 5.0, pause.over)
        pause.set(True)
        words = asyncio.create_task(recogniser.transcribe(b"\1\0" * 16_000, SpeechOptions()))
        await unchanged(words.done)
        pause.set(False)
        assert (await asyncio.wait_for(words, 30)).words
        running.cancel()

    asyncio.run(go())


def test_a_client_does_not_wait_for_ever() -> None:
    pause = Pause()
    pause.set(True)
    with pytest.raises(ClientError) as refused:
        asyncio.run(pause.over(0.01))
    assert refused.value.status == 503 and refused.value.retry_after_s


def test_a_worker_gives_way_while_an_ingress_has_too_much_to_do(tmp_path: object) -> None:
    async def go() -> None:
        there = models()
        config = Config(profile="sim", storage=StorageConfig(directory=str(tmp_path)))
        worker = Worker(config.worker, there.transcriber, there.diarizer)
        working = asyncio.create_task(worker.run())
        replicas = there.transcriber
        assert isinstance(replicas, LocalReplicaSet)
        await until(lambda: replicas.connections)
        connection = replicas.connections["sim"]
        window = worker._recogniser.transcribe
        connection.level = 1
        await until(lambda: not worker._pause._over.is_set())
        waiting = asyncio.create_task(window(b"\1\0" * 16_000, SpeechOptions()))
        await unchanged(waiting.done)
        connection.level = 0
        await asyncio.wait_for(waiting, 5)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(go())
