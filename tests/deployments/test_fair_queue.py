"""What goes before what."""

import pytest

from deployments.fair_queue import LIVE_FIRST, FairQueue


def taken(queue: FairQueue[str]) -> list[str]:
    return [queue.take() for _ in range(len(queue))]


def test_live_work_goes_first_and_then_the_lowest_rank() -> None:
    queue: FairQueue[str] = FairQueue()
    for item, rank, batch in (("b", 0.0, True), ("late", 2.0, False), ("soon", 1.0, False)):
        queue.put(item, rank, batch)
    queue.put("as soon", 1.0, False)
    assert taken(queue) == ["soon", "as soon", "late", "b"]
    with pytest.raises(IndexError):
        queue.take()


def test_a_recording_does_not_wait_for_the_end_of_all_live_work() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3 * LIVE_FIRST):
        queue.put("live", 0.0, False)
        if number < 2:
            queue.put(str(number), 1.0 - number, True)
    order = taken(queue)
    assert [order.index("1"), order.index("0")] == [LIVE_FIRST, 2 * LIVE_FIRST + 1]


def test_a_recording_that_comes_waits_for_live_work_that_is_there() -> None:
    """What went before it came does not count."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(2 * LIVE_FIRST):
        queue.put("live", 0.0, False)
    for _ in range(LIVE_FIRST):
        queue.take()
    queue.put("recording", 0.0, True)
    assert taken(queue) == ["live"] * LIVE_FIRST + ["recording"]


def test_what_is_gone_is_taken_out_and_the_order_stays() -> None:
    queue: FairQueue[str] = FairQueue()
    for rank in range(6):
        queue.put(f"{rank}", -rank, rank % 2 == 0)
    assert sorted(queue.remove(lambda it: it in "25")) == ["2", "5"]
    assert taken(queue) == ["3", "1", "4", "0"]
