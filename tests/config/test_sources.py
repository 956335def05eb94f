"""Settings from the environment: every key has a variable, and the order of precedence holds."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from serve_app.app import build
from serve_app.cli import FAILED
from serve_app.cli.config_file import settings
from serve_app.config import Config
from serve_app.config.sources import WrongSetting, configured, with_environment
from tests.config.test_config import given
from tests.server import BIN


def config(environment: dict[str, str], args: dict[str, Any] | None = None) -> Config:
    return configured(with_environment(args or {}, environment), environment, "file.yaml")


def leaves(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of the tree, and its default."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


LEAVES = dict(leaves(Config()))
OTHER = {"profile": "sim", "diarizer.pyannote.device": "cuda", "vad.engine": "webrtc"}
OTHER |= {"auth.mode": "keys", "logging.level": "debug", "logging.format": "text"}
"""Where only some words are allowed."""


def another(path: tuple[str, ...], value: Any) -> Any:
    """A valid value other than the default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return value[:1]
    if isinstance(value, dict):
        return {"acme": {"weight": 2.0}} if path == ("tenants",) else {"Name": "a value"}
    if isinstance(value, tuple):
        return ["10.0.0.0/8", "fd00::/8"]
    if isinstance(value, str):
        return "cpu" if path[-1] == "device" else OTHER.get(".".join(path), "something else")
    for candidate in (value + 80, value * 2, value / 2, value - 1):
        try:
            Config.model_validate(given(path, candidate))
        except ValueError:
            continue
        return candidate
    raise AssertionError(path)


TOGETHER = {
    *(("tls", name) for name in ("certificate", "key", "client_ca")),
    *(("auth", "jwt", name) for name in ("issuer", "audience", "jwks")),
}
"""One of them alone is refused."""

TYPED = {("browser", "links")}
"""A table with values of its own; tests/config/test_browser.py has some."""


def test_every_key_has_a_variable() -> None:
    assert len(LEAVES) > 150
    for path, default in LEAVES.items():
        if path in TOGETHER or path in TYPED:
            continue
        wanted = another(path, default)
        text = wanted if isinstance(wanted, str) else json.dumps(wanted)
        tree = config({f"VOXRAY__{'__'.join(path).upper()}": text})
        assert tree == Config.model_validate(given(path, wanted)), path


def test_the_environment_overrides_the_file_and_the_file_the_profile() -> None:
    file = {"profile": "sim", "transcriber": {"engine": "voxtral", "batch_interval_ms": 20}}
    tree = config({"VOXRAY__TRANSCRIBER__ENGINE": "pocketsphinx"}, file)
    assert tree.transcriber_engine == "pocketsphinx"
    assert tree.transcriber.batch_interval_ms == 20
    assert config({}, file).transcriber_engine == "voxtral"
    assert config({}, file).speaker_engine == "sim"
    assert config({"VOXRAY__PROFILE": "gpu"}, file).speaker_engine == "kokoro"


def test_an_option_of_the_command_overrides_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text("applications: [{args: {profile: cpu}}]")
    monkeypatch.setenv("VOXRAY__PROFILE", "gpu")
    assert settings(file, None, None, None)[0]["profile"] == "gpu"
    assert settings(file, None, None, "sim")[0]["profile"] == "sim"


def test_a_section_in_json_is_merged_key_by_key() -> None:
    tree = config(
        {"VOXRAY__LIMITS": '{"max_sessions": 7}', "VOXRAY__LIMITS__MAX_TOOLS": "3"},
        {"limits": {"max_items": 9, "max_sessions": 8}},
    )
    assert (tree.limits.max_sessions, tree.limits.max_tools, tree.limits.max_items) == (7, 3, 9)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("VOXRAY__TRANSCRIBER__ENGIN", "sim", "unknown key; did you mean engine?; allowed: "),
        ("VOXRAY__TENANTS__ACME__LIMITS__SESSION", "3", "unknown key; did you mean sessions?"),
        ("VOXRAY__TRANSCRIBR__ENGINE", "sim", "unknown key; did you mean transcriber?"),
        ("VOXRAY__TRANSCRIBER_ENGINE", "sim", "unknown key; did you mean transcriber?"),
        ("VOXRAY__TRANSCRIBER__ENGINE__NAME", "sim", "valid string"),
        ("VOXRAY__", "sim", "unknown key"),
        ("VOXRAY__PROFILE", "cuda", "'cpu', 'gpu' or 'sim'"),
        ("VOXRAY__LIMITS__MAX_SESSIONS", "many", "valid integer"),
        ("VOXRAY__LIMITS__MAX_SESSIONS", "", "valid integer"),
        ("VOXRAY__LIMITS", "{", "not valid JSON"),
        ("VOXRAY__SPEAKER__STYLES", "{", "not valid JSON"),
        ("VOXRAY__VAD__SCALE__MIN_REPLICAS", "9", "max_replicas must not be below min_replicas"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, told: str) -> None:
    with pytest.raises(WrongSetting) as error:
        config({name: value, "VOXRAY__GPU__COUNT": "2"}, {"gpu": {"count": 3}})
    assert str(error.value).startswith(f"{name}: ") and told in str(error.value)


def test_a_wrong_key_of_the_file_does_not_blame_a_variable() -> None:
    with pytest.raises(WrongSetting, match=r"^file\.yaml: vad\.agressiveness: unknown key; did"):
        config({"VOXRAY__VAD__MIN_SPEECH_MS": "100"}, {"vad": {"agressiveness": 1}})


def test_other_variables_of_voxray_are_not_settings() -> None:
    assert config({"VOXRAY_SERVER": "http://x", "VOXRAY_DATABASE_URL": "y"}) == Config()


def test_a_cluster_reads_the_environment_of_the_node_that_builds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOXRAY__TRANSCRIBER__ENGINE", "whisper")
    with pytest.raises(ValueError, match="whisper"):
        build({"transcriber": {"engine": "sim"}})


def voxray_env(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "voxray"), "env"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_voxray_env_prints_and_checks_them() -> None:
    good = voxray_env(VOXRAY__LIMITS__MAX_SESSION_S="7200")
    assert "export VOXRAY__LIMITS__MAX_SESSION_S=7200\n" in good.stdout
    assert "export RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S=7320\n" in good.stdout
    wrong = voxray_env(VOXRAY__TRANSCRIBER__ENGIN="sim")
    assert wrong.returncode == FAILED and wrong.stdout == ""
    assert "VOXRAY__TRANSCRIBER__ENGIN: unknown key" in wrong.stderr
