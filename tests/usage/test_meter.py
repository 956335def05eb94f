"""What is added, and who hears of it."""

from serve_app.identity.principal import EVERYBODY, Principal
from serve_app.usage.meter import MOST_SUMS, Counted, Meter


def test_followers_hear_of_each_amount() -> None:
    meter, heard = Meter(lambda: 20_000), list[object]()
    meter.follow(lambda *added: heard.append(added))
    meter.add(EVERYBODY, Counted.AUDIO, 1.5)
    meter.add(Principal("acme", "k1"), Counted.TOKENS, 20)
    assert heard == [
        (EVERYBODY, Counted.AUDIO, 1.5),
        (Principal("acme", "k1"), Counted.TOKENS, 20),
    ]


def test_a_clock_that_is_set_back_opens_no_day_again() -> None:
    days = iter([5, 6, 5])
    meter = Meter(lambda: next(days))
    for _ in range(3):
        meter.add(EVERYBODY, Counted.JOBS, 1)
    assert {entry.day: amount for entry, amount in meter.unwritten().items()} == {5: 1, 6: 2}


def test_what_is_written_is_written_again_only_when_more_is_added() -> None:
    meter = Meter(lambda: 5)
    meter.add(EVERYBODY, Counted.AUDIO, 2)
    written = meter.unwritten()
    meter.add(EVERYBODY, Counted.AUDIO, 3)
    meter.wrote(written)
    assert list(meter.unwritten().values()) == [5]
    meter.wrote(meter.unwritten())
    assert meter.is_written and meter.of_today("default") == {("", Counted.AUDIO): 5}


def test_past_days_are_forgotten_once_they_are_written() -> None:
    day = [5]
    meter = Meter(lambda: day[0])
    meter.add(EVERYBODY, Counted.AUDIO, 2)
    day[0] = 6
    meter.add(EVERYBODY, Counted.AUDIO, 1)
    assert len(meter.unwritten()) == 2
    meter.wrote(meter.unwritten())
    assert list(meter._sums.values()) == [1]


def test_more_keys_than_there_is_room_for_are_counted_for_their_tenant() -> None:
    meter = Meter(lambda: 5)
    for number in range(MOST_SUMS + 500):
        meter.add(Principal("acme", f"k{number}"), Counted.REQUESTS, 1)
    sums = meter.of_today("acme")
    assert len(sums) == MOST_SUMS + 1 and sums["", Counted.REQUESTS] == 500
    assert sum(sums.values()) == MOST_SUMS + 500


def test_an_amount_is_never_taken_back() -> None:
    meter = Meter(lambda: 5)
    meter.add(EVERYBODY, Counted.AUDIO, -1)
    meter.add(EVERYBODY, Counted.AUDIO, 0)
    assert meter.is_written
