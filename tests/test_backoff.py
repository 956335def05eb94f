from serve_app.backoff import backoff_s, full_jitter_s


def test_it_doubles_up_to_its_longest_and_is_spread() -> None:
    for attempt, whole in ((1, 2), (2, 4), (3, 8), (4, 10), (2000, 10)):
        waits = {backoff_s(2, attempt, 10) for _ in range(200)}
        assert len(waits) > 100 and whole / 2 <= min(waits) and max(waits) <= whole
        assert max(waits) - min(waits) > whole / 4


def test_full_jitter_is_spread_over_all_of_it() -> None:
    for attempt, whole in ((1, 2), (2, 4), (4, 10), (2000, 10)):
        waits = [full_jitter_s(2, attempt, 10) for _ in range(500)]
        assert min(waits) < whole / 10 and whole * 0.9 < max(waits) <= whole
