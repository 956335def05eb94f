"""`voxray tenants`, as a person types it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.main import app

ARGS = {"tenants": {"acme": {"limits": {"sessions": 9, "conversations": 4}}}}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    args = {**ARGS, "storage": {"directory": str(tmp_path)}}
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump({"applications": [{"args": args}]}))

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["tenants", *words, "--config", str(file)])
        assert done.exit_code == code, done.output
        return str(done.stdout)

    return run


def test_what_is_set_overrides_the_configuration_until_it_is_deleted(run: Any) -> None:
    run("set", "acme", "sessions=5", "requests_per_minute=60", "weight=3.5")
    run("set", "acme", "sessions=1", "--each-key")
    run("set", "acme", "sessions=2", "--key", "abc")
    (own, each, one) = json.loads(run("show", "acme", "--json"))
    all_ = {"sessions": 5, "conversations": 4, "requests_per_minute": 60, "weight": 3.5}
    assert own == {"tenant": "acme", "key": "", "settings": all_}
    assert each == {"tenant": "acme", "key": "*", "settings": {"sessions": 1}}
    assert one == {"tenant": "acme", "key": "abc", "settings": {"sessions": 2}}
    assert "sessions=5" in run("list")
    run("delete", "acme", "sessions")
    assert json.loads(run("show", "acme", "--json"))[0]["settings"]["sessions"] == 9
    for more in ((), ("--each-key",), ("--key", "abc")):
        run("delete", "acme", *more)
    assert json.loads(run("list", "--json")) == []
    run("delete", "acme", code=1)


def test_the_audit_log_says_who_did_it(run: Any, tmp_path: Path) -> None:
    run("set", "acme", "sessions=5")
    run("delete", "acme")
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["settings"] for line in lines] == ["sessions=5", "none"]
    assert all(line["event"] == "tenant_changed" and line["tenant"] == "acme" for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ("set", "acme", "nonsense=5"),
        ("set", "acme", "sessions"),
        ("set", "acme", "sessions=-1"),
        ("set", "acme", "sessions=a"),
        ("set", "acme", "weight=0"),
        ("set", "acme", "weight=2", "--each-key"),
        ("set", "../acme", "sessions=1"),
        ("set", "acme", "sessions=1", "--key", "a", "--each-key"),
        ("set", "acme"),
        ("delete", "acme", "nonsense"),
    ],
)
def test_wrong_words_change_nothing(run: Any, words: tuple[str, ...]) -> None:
    run(*words, code=2)
    assert json.loads(run("list", "--json")) == []
