"""Places that do not show yet in what is measured."""

from serve_app.admission.places import HANDSHAKE_S, HEARD_S, SILENT_S, UNSEEN_S, Places


def test_a_handshake_that_is_not_completed_gives_its_place_back() -> None:
    places = Places()
    place = places.reserve(0.0, "acme")
    places.sweep(HANDSHAKE_S)
    assert (places.reserved, places.unseen) == (1, 1)
    places.sweep(HANDSHAKE_S + 0.1)
    assert (places.reserved, places.unseen) == (0, 0)
    assert not places.take(place, HANDSHAKE_S + 0.2)
    assert places.unseen == 0


def test_a_session_shows_once_its_audio_does() -> None:
    places = Places()
    heard = 0.0
    places.take(places.reserve(0.0, "acme"), 1.0, lambda: heard)
    assert (places.reserved, places.unseen) == (0, 1)
    places.sweep(1.0 + UNSEEN_S + 0.1)
    assert places.unseen == 1, "it has sent nothing"
    heard = HEARD_S
    places.sweep(1.0 + UNSEEN_S + 0.2)
    assert places.unseen == 0


def test_a_silent_session_does_not_hold_its_place_for_ever() -> None:
    places = Places()
    places.take(places.reserve(0.0, "acme"), 0.0, lambda: 0.0)
    places.sweep(SILENT_S + 0.1)
    assert places.unseen == 0


def test_who_leaves_gives_the_place_back_at_once() -> None:
    places = Places()
    reserved, taken = places.reserve(0.0, "acme"), places.reserve(0.0, "acme")
    places.take(taken, 0.0, lambda: 9.0)
    for place in (reserved, taken, taken):
        places.leave(place)
    assert (places.reserved, places.unseen) == (0, 0)
