"""A session that is cut and resumed has heard each sample once, whoever heard it."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

from deployments.interfaces import RATE
from deployments.vad import Vad
from serve_app.live.fence import Claim, SessionElsewhere
from serve_app.security.resume_token import ResumeTokens
from tests.api.sockets.test_resume import KEYS, Talker
from tests.client.cutting import cutting
from tests.client.drivers import Driver, both
from tests.fakes import LocalReplicaSet, Serving, models, serving, sim_transcriber
from tests.usage.served import configured, used
from tests.waiting import wait_for

CUT = 70
"""Chunks of 100 ms until a connection is lost, in the middle of speech."""


class Ingresses:
    """A cluster of which only the takeovers are there."""

    def __init__(self) -> None:
        self.backends = [replace(models(keys=KEYS), cluster=cast(Any, self)) for _ in range(2)]
        self.serving: list[Serving] = []

    async def fence(self, claims: Sequence[Claim]) -> Sequence[SessionElsewhere]:
        """Each answers on its own loop."""
        answers: list[SessionElsewhere] = []
        for backend, there in zip(self.backends, self.serving, strict=True):
            done: list[None] = []

            def answer(fence: Any = backend.fence, done: list[None] = done) -> None:
                answers.extend(fence.answer(claim) for claim in claims)
                done.append(None)

            there.call(answer)
            await asyncio.to_thread(wait_for, lambda done=done: done)
        return answers


@contextmanager
def ingresses(folder: Path) -> Iterator[list[str]]:
    """Two that tell each other who resumes, with one database."""
    cluster, config = Ingresses(), configured(folder)
    one, other = cluster.backends
    with serving(config, one) as here, serving(config, other) as there:
        cluster.serving = [here, there]
        yield [here.address, there.address]


def heard(addresses: Sequence[str]) -> float:
    """Seconds, when all have written."""
    return [float(used(address)["audio_seconds"]) for address in [*addresses, *addresses]][-1]


@pytest.fixture(scope="module")
def noisy(talk: bytes) -> bytes:
    """Speech, a long silence, speech."""
    whole = np.frombuffer(talk[: 32_000 * 12] + bytes(32_000 * 7) + talk[: 32_000 * 6], "<i2")
    noise = np.random.default_rng(2).normal(0, 30, len(whole))
    return (whole + noise).astype("<i2").tobytes()


@pytest.mark.parametrize("seed", range(2))
def test_what_is_sent_again_elsewhere_counts_once(tmp_path: Path, noisy: bytes, seed: int) -> None:
    chunks = len(noisy) // 3200
    breaks = sorted(random.Random(seed).sample(range(10, chunks), 3))
    with ingresses(tmp_path) as addresses:
        talker = Talker(addresses, noisy, pace_s=0.002)
        asyncio.run(talker.run(*breaks))
        assert heard(addresses) == pytest.approx(len(noisy) / 32_000, abs=0.002)


def test_what_a_lost_ingress_told_in_its_tokens_counts_once(tmp_path: Path, noisy: bytes) -> None:
    """Nobody knows what it heard after that; it counts where it is heard again."""
    config = configured(tmp_path)
    with serving(config, models(keys=KEYS)) as here, serving(config, models(keys=KEYS)) as there:
        talker = Talker([here.address, there.address], noisy, pace_s=0.01)
        asyncio.run(talker.run(CUT))
        seconds = heard([here.address, there.address])
    resumed = [event["resume"] for event in talker.events if "resumed_from_ms" in event]
    _, point = ResumeTokens(KEYS, "default", 300.0, time.time).opened(resumed[0])
    assert point.heard > point.audio > 0
    untold = CUT / 10 - point.heard / RATE
    assert seconds == pytest.approx(len(noisy) / 32_000 + untold, abs=0.002)


@both
def test_the_reference_clients_pay_once(client: Driver, talk: bytes, tmp_path: Path) -> None:
    audio = tmp_path / "talk.raw"
    audio.write_bytes(talk)

    async def streamed(address: str) -> None:
        async with cutting(address, 70_000, 130_000, 60_000) as proxy:
            await client(f"http://{proxy}", audio, speed=8)

    with serving(configured(tmp_path)) as here:
        asyncio.run(streamed(here.address))
        assert used(here.address)["audio_seconds"] == pytest.approx(len(talk) / 32_000, abs=0.002)


@dataclass
class Killer(Talker):
    """Its models die in the middle of speech."""

    kill: Callable[[], None] = lambda: None

    async def send(self, socket: ClientConnection, end: int | None) -> None:
        await super().send(socket, CUT)
        self.kill()
        self.pcm = self.pcm[CUT * 3200 :]
        self.keep_from = 0
        await super().send(socket, end)


def test_audio_that_a_model_hears_again_counts_once(tmp_path: Path, talk: bytes) -> None:
    vads = LocalReplicaSet(one=Vad(), two=Vad())
    transcribers = LocalReplicaSet(one=sim_transcriber(), two=sim_transcriber())
    with serving(configured(tmp_path), models(vad=vads, transcriber=transcribers)) as here:

        def kill() -> None:
            for replicas in (vads, transcribers):
                busy = max(replicas.connections.values(), key=lambda it: it.exchanges)
                here.call(busy.kill)

        killer = Killer([here.address], talk, pace_s=0.005, kill=kill)
        asyncio.run(killer.run())
        assert killer.events[-1]["metrics"]["replays"] > 0
        assert used(here.address)["audio_seconds"] == pytest.approx(len(talk) / 32_000, abs=0.002)
