import random

from serve_app.client.retained_audio import RetainedAudio

RATE, FRAME = 1_000, 2
"""One frame a millisecond."""


def audio(from_ms: int, until_ms: int) -> bytes:
    return b"".join(ms.to_bytes(2, "little") for ms in range(from_ms, until_ms))


def retained(*, most_ms: int = 1_000) -> RetainedAudio:
    return RetainedAudio(RATE, FRAME, most_ms)


def test_it_takes_no_more_than_its_bound() -> None:
    kept = retained(most_ms=100)
    assert kept.push(audio(0, 150)) == 200 and kept.push(audio(100, 150)) == 0
    assert kept.take(1_000) == audio(0, 100) and kept.take(1_000) is None
    assert kept.push(audio(100, 150)) == 0, "what was sent is not final"
    kept.confirm(30)
    assert kept.push(audio(100, 150)) == 60


def test_what_was_not_sent_cannot_be_final() -> None:
    kept = retained()
    kept.push(audio(0, 100))
    kept.take(40)
    kept.confirm(70)
    assert kept.take(1_000) == audio(40, 100)


def test_it_goes_back_to_any_place_that_it_holds() -> None:
    kept = retained()
    kept.push(audio(0, 100))
    kept.take(100)
    kept.confirm(30)
    assert not kept.complete
    assert [kept.holds(ms) for ms in (29, 30, 100, 101)] == [False, True, True, False]
    kept.rewind(50)
    assert kept.sent_ms == 50 and kept.take(10) == audio(50, 60) and not kept.holds(49)


def test_commands_stay_at_their_places() -> None:
    kept = retained()
    kept.push(audio(0, 50))
    kept.finalize()
    kept.push(audio(50, 80))
    kept.finish()
    rest = ["finalize", audio(50, 80), "stop", None]
    assert [kept.take(100) for _ in range(5)] == [audio(0, 50), *rest]
    kept.rewind(20)
    assert [kept.take(100) for _ in range(5)] == [audio(20, 50), *rest]
    kept.rewind(50)  # all before it is final: so was what it finalized
    assert [kept.take(100) for _ in range(3)] == [audio(50, 80), "stop", None]


def test_nothing_is_lost_or_sent_twice_by_any_course_of_events() -> None:
    dice = random.Random(0)
    for _ in range(200):
        kept, pushed, heard, final = retained(), 0, 0, 0
        for _ in range(50):
            match dice.randrange(4):
                case 0:
                    size = dice.randrange(200)
                    pushed += kept.push(audio(pushed, pushed + size)) // FRAME
                case 1:
                    taken = kept.take(dice.randrange(1, 100))
                    if isinstance(taken, bytes):
                        assert taken == audio(heard, heard + len(taken) // FRAME)
                        heard += len(taken) // FRAME
                case 2:
                    final = dice.randint(final, heard)
                    kept.confirm(final)
                case 3:
                    heard = final = dice.randint(final, heard)
                    kept.rewind(heard)
        assert kept.take(10_000) == (audio(heard, pushed) or None)
