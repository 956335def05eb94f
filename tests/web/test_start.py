"""The first view, and what holds for the whole page."""

from collections.abc import Iterator

import pytest

from tests.browser import Browser, running
from tests.fakes import served
from tests.web.page import accessible, opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


def test_the_first_view_has_a_door_to_every_other(browser: Browser, address: str) -> None:
    with browser.tab() as tab:
        opened(tab, address)
        accessible(tab)
        assert tab.problems == []
