"""`voxray run` says who needs a key, and does not start where others would need none."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.cli import Failure
from serve_app.cli.access import check_access
from serve_app.config import Config
from tests.ports import free_port
from tests.server import voxray

KEY = "0123456789abcdef0123456789abcdef"


def said(capsys: pytest.CaptureFixture[str], *given: Any, **auth: Any) -> str:
    check_access(Config.model_validate({"profile": "sim", "auth": auth or "off"}), *given)
    return capsys.readouterr().err


def test_on_loopback_no_key_is_needed_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no key is needed, because only this machine" in said(capsys, [], False)
    assert "clients need a key" in said(capsys, [], False, mode="keys")


def test_elsewhere_a_key_is_needed_unless_somebody_insists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Failure, match=r"0\.0\.0\.0 and 10\.0\.0\.1 can be reached.*--insecure"):
        said(capsys, ["0.0.0.0", "10.0.0.1"], False)
    assert "warning: 0.0.0.0 can be reached" in said(capsys, ["0.0.0.0"], True)
    assert "warning" not in said(capsys, ["0.0.0.0"], False, mode="keys")


@pytest.mark.parametrize(
    ("options", "environment", "refused"),
    [
        (["--host", "0.0.0.0"], {}, "--insecure"),
        ([], {"VOXRAY__TCP": '{"port": 9, "host": "0.0.0.0"}'}, "--insecure"),
        (["--host", "0.0.0.0"], {"VOXRAY_API_KEY": "short"}, "a key has 16 to 512"),
        ([], {"VOXRAY__AUTH__MODE": "keys"}, "VOXRAY_KEY_PEPPER"),
        ([], {"VOXRAY__AUTH__MODE": "on"}, "keys are needed, but there are none"),
    ],
)
def test_run_refuses_before_anything_starts(
    options: list[str],
    environment: dict[str, str],
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**environment, "VOXRAY__PROFILE": "sim"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    result = voxray("run", "--port", str(free_port()), *options)
    assert result.returncode == 1 and refused in result.stderr
    assert "starting" not in result.stderr and "Traceback" not in result.stderr
    assert environment.get("VOXRAY_API_KEY", "…") not in result.stderr
