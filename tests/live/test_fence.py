"""Of several connections to a session the newest stays."""

import asyncio
from collections.abc import Sequence

import pytest

from serve_app.live.fence import MOST_REMEMBERED, Claim, Fence, SessionElsewhere
from serve_app.live.takeovers import Takeovers
from tests.waiting import unchanged, until

FIRST = Claim("a", 0, 5.0)


@pytest.mark.parametrize(
    ("claim", "stays"),
    [
        (Claim("a", 1, 1.0), "new"),
        (Claim("a", 0, 6.0), "new"),
        (Claim("a", 0, 4.0), "old"),
        (Claim("b", 0, 0.0), "both"),
    ],
)
def test_the_newest_stays(claim: Claim, stays: str) -> None:
    fence, ended = Fence(), list[str]()
    assert fence.enter(FIRST, ended.append)
    assert fence.enter(claim, lambda code: None) == (stays != "old")
    assert ended == (["session_resumed"] if stays == "new" else [])


def test_a_connection_that_left_is_not_ended() -> None:
    fence, ended = Fence(), list[str]()
    fence.enter(FIRST, ended.append)
    fence.leave(Claim("a", 0, 7.0))
    fence.leave(FIRST)
    assert fence.admits(Claim("a", 9, 9.0)) and not ended


class Replicas:
    """Two ingress replicas that tell each other."""

    def __init__(self) -> None:
        self.fences = [Fence(), Fence()]
        self.told: list[list[Claim]] = []
        self.broken = False
        self.takeovers = [Takeovers(fence, self.tell) for fence in self.fences]

    async def tell(self, claims: Sequence[Claim]) -> Sequence[SessionElsewhere]:
        self.told.append(list(claims))
        if self.broken:
            raise ConnectionError
        return [fence.answer(claim) for claim in claims for fence in self.fences]


async def two() -> tuple[Replicas, list[asyncio.Task[None]]]:
    replicas = Replicas()
    return replicas, [asyncio.create_task(it.run()) for it in replicas.takeovers]


def test_the_older_connection_at_another_replica_ends() -> None:
    async def go() -> None:
        replicas, tasks = await two()
        one, other = replicas.takeovers
        old: list[str] = []
        new: list[str] = []
        one.begin(FIRST, old.append)
        other.begin(Claim("fresh", 0, 6.0), new.append)
        assert other.resume(Claim("fresh", 0, 6.0), Claim("a", 1, 7.0), new.append)
        assert await until(lambda: old) == ["session_resumed"]
        assert not await unchanged(lambda: list(new))
        for task in tasks:
            task.cancel()

    asyncio.run(go())


def test_who_comes_with_an_old_token_ends_where_a_newer_one_is_elsewhere() -> None:
    async def go() -> None:
        replicas, tasks = await two()
        one, other = replicas.takeovers
        newest: list[str] = []
        late: list[str] = []
        one.begin(Claim("a", 3, 1.0), newest.append)
        assert other.resume(Claim("x", 0, 6.0), Claim("a", 1, 7.0), late.append)
        assert await until(lambda: late) == ["session_resumed"] and not newest
        for task in tasks:
            task.cancel()

    asyncio.run(go())


def test_takeovers_that_come_together_are_told_together_and_failures_harm_nobody() -> None:
    async def go() -> None:
        replicas, tasks = await two()
        replicas.broken = True
        ended: list[str] = []
        for number in range(5):
            claim = Claim(f"s{number}", 1, 1.0)
            assert replicas.takeovers[0].resume(claim, claim, ended.append)
        await until(lambda: replicas.told)
        assert [len(claims) for claims in replicas.told] == [5] and not ended
        assert not tasks[0].done()
        for task in tasks:
            task.cancel()

    asyncio.run(go())


def test_what_older_connections_have_heard_is_told_wherever_they_were() -> None:
    async def go() -> None:
        replicas, tasks = await two()
        one, other = replicas.takeovers
        heard: list[int] = []

        def end(code: str) -> None:
            one.leave(FIRST, 500)

        one.begin(FIRST, end)
        other.leave(Claim("a", 0, 4.0), 300)
        assert other.resume(Claim("x", 0, 6.0), Claim("a", 1, 7.0), end, heard.append)
        assert heard == [300]
        await until(lambda: heard == [300, 500])
        for task in tasks:
            task.cancel()

    asyncio.run(go())


def test_only_the_latest_sessions_are_remembered() -> None:
    fence = Fence()
    fence.remember("none", 0)
    for number in range(MOST_REMEMBERED + 5):
        fence.remember(f"s{number}", 7)
    fence.remember("s5", 3)
    fence.remember("one more", 7)
    assert [fence.heard(f"s{number}") for number in (4, 5, 6, 7)] == [0, 7, 0, 7]
