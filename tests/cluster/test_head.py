"""Questions to Ray's head that it answers, refuses, or leaves unanswered."""

import asyncio
import threading

import pytest

from serve_app.cluster import head
from serve_app.cluster.head import HeadUnavailable, ask_head


def test_an_answer_is_passed_on() -> None:
    assert asyncio.run(ask_head(divmod, 7, 2)) == (3, 1)


def test_an_error_of_ray_is_a_503() -> None:
    def refuse() -> None:
        raise RuntimeError("GCS is down")

    with pytest.raises(HeadUnavailable) as raised:
        asyncio.run(ask_head(refuse))
    assert (raised.value.status, raised.value.code) == (503, "head_unavailable")


def test_a_head_that_hangs_does_not_take_the_threads_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head, "PATIENCE_S", 0.1)
    returns = threading.Event()

    async def go() -> str:
        asked = [asyncio.create_task(ask_head(returns.wait)) for _ in range(40)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, HeadUnavailable) for one in ended)
        return await asyncio.to_thread(lambda: "free")

    try:
        assert asyncio.run(asyncio.wait_for(go(), 5)) == "free"
    finally:
        returns.set()
