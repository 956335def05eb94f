"""The form of our keys, and what is stored of them."""

import zlib
from itertools import combinations

import pytest

from serve_app.identity.api_key import Peppers, ShownKey, parsed_key

KEY = ShownKey("0a1b2c3d4e5f", "Ab0" * 14 + "z")
OLD, NEW = b"o" * 32, b"n" * 32


def test_a_key_can_be_read_back() -> None:
    assert str(KEY).startswith("vx_0a1b2c3d4e5f_Ab0")
    assert len(str(KEY)) == 65
    assert parsed_key(str(KEY)) == KEY


def test_a_key_with_a_wrong_letter_is_none() -> None:
    good = str(KEY)
    for at in range(len(good)):
        changed = good[:at] + ("x" if good[at] != "x" else "y") + good[at + 1 :]
        assert parsed_key(changed) is None


@pytest.mark.parametrize(
    "text", ["", "vx_", str(KEY)[:-1], f"{KEY} ", f"{KEY}\n", f" {KEY}", "vx_" * 3000]
)
def test_what_has_another_form_is_none(text: str) -> None:
    assert parsed_key(text) is None


def test_the_check_is_a_crc_that_a_leak_scanner_can_compute() -> None:
    body, check = str(KEY)[:-6], str(KEY)[-6:]
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    number = 0
    for letter in check:
        number = number * 62 + letters.index(letter)
    assert number == zlib.crc32(body.encode())


def test_what_is_stored_depends_on_the_pepper_the_id_and_the_secret() -> None:
    old, both = Peppers([OLD]), Peppers([NEW, OLD])
    assert both.newest != old.newest
    assert both.digest(old.newest, KEY) == old.digest(old.newest, KEY)
    stored = {
        old.digest(old.newest, KEY),
        both.digest(both.newest, KEY),
        old.digest(old.newest, KEY._replace(id="1a1b2c3d4e5f")),
        old.digest(old.newest, KEY._replace(secret="Ab0" * 14 + "y")),
        old.digest(both.newest, KEY),  # a pepper that it has not
    }
    assert len(stored) == 5
    assert all(len(it) == 32 for it in stored)
    assert all(one != other for one, other in combinations(stored, 2))
    assert old.newest in both and both.newest not in old
