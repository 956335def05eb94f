"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from docs.generate import audit_events, configuration, errors, log_events, metrics, scopes
from serve_app.dialects.native import TYPES, Start

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

PUZZLING = re.compile(
    r"\b(whatever|whoever|whichever|lest|hence|anew|at hand|at work|so many|of (?:its|one's) own"
    r"|(?:is|are|was|were) told|tells? the same|stands (?:in|at|for|under)|goes on|a stand-in"
    r"|twin|seats?|riders?)\b",
    re.I,
)
"""Words that many readers must look up or read twice, and old names of things."""


def test_the_configuration_page_is_current() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == configuration(), "run `make docs`"


def test_the_table_of_errors_is_current() -> None:
    assert errors() in (ROOT / "docs/protocol.md").read_text(), "run `make docs`"


def test_the_table_of_metrics_is_current() -> None:
    assert metrics() in (ROOT / "docs/observability.md").read_text(), "run `make docs`"


def test_the_table_of_events_is_current() -> None:
    assert log_events() in (ROOT / "docs/observability.md").read_text(), "run `make docs`"


def test_the_tables_of_scopes_and_of_the_audit_log_are_current() -> None:
    page = (ROOT / "docs/keys.md").read_text()
    assert scopes() in page and audit_events() in page, "run `make docs`"


def test_the_protocol_page_knows_every_message_and_field() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    assert all(f'"type":"{kind}"' in page for kind in TYPES)
    assert all(f"`{field}`" in page for field in Start.model_fields if field != "type")


def test_the_engine_in_the_docs_is_the_one_that_is_tested() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/engines.md").read_text(), re.S)
    tested = (ROOT / "tests/own_engine.py").read_text()
    assert tested.endswith(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`(?:[A-Z]+=\"[^\"]*\" )?make ([a-z-]+)", page.read_text()):
        assert f"\n{target}:" in makefile, target


def test_troubleshooting_quotes_what_the_program_says() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    sources = [ROOT / "Makefile", *ROOT.glob("serve_app/**/*.py")]
    said = "".join(source.read_text() for source in sources)
    said += "No space left on device"  # Linux
    quoted = re.findall(r"`([^`]+)`", "".join(re.findall(r"^## .*$", page, re.M)))
    assert len(quoted) > 10
    for fragment in (piece for quote in quoted for piece in quote.split("…")):
        assert fragment in said, fragment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "serve_app")
    named = re.findall(r"`([a-z_./]+\.(?:py|yaml))`", page.read_text())
    assert [it for it in named if not any((root / it).exists() for root in roots)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_in_plain_words(page: Path) -> None:
    assert [found[0] for found in PUZZLING.finditer(page.read_text())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_fits_on_a_screen(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$|^\|.*?$", "", page.read_text(), flags=re.S | re.M)
    assert [line for line in prose.splitlines() if len(line) > 120] == []
