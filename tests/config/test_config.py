import re
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from serve_app.app import build
from serve_app.cli.config_file import DEFAULT
from serve_app.cli.listen_address import is_loopback
from serve_app.cluster.environment import serve_environment
from serve_app.cluster.scaling import replicas_for
from serve_app.config import Config
from serve_app.config.auth import JwtConfig
from serve_app.engines import engine_class

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "args",
    [
        {"profil": "cpu"},
        {"profile": "cuda"},
        {"transcriber": {"voxtral_realtime": {"delay_ms": 500}}},
        {"limits": {"max_sessions": 0}},
        {"vad": {"aggressiveness": 4}},
        {"transcriber": {"scale": {"min_replicas": 3, "max_replicas": 2}}},
    ],
)
def test_what_cannot_be_meant_is_refused(args: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(args)


def sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every section in the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield (*path, name)
            yield from sections(type(field.default), (*path, name))


def test_who_sets_one_key_of_a_section_keeps_the_defaults_of_the_others() -> None:
    paths, default = list(sections(Config)), Config()
    assert ("jobs", "scale") in paths and len(paths) > 20
    for path in paths:
        assert Config.model_validate(given(path, {})) == default, path
    jobs = Config.model_validate(given(("jobs", "scale", "max_replicas"), 3)).jobs
    assert jobs.scale == default.jobs.scale.model_copy(update={"max_replicas": 3})


def numbers(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every number in the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, (*path, name))
        elif field.annotation in (int, float):
            yield (*path, name)


def given(path: tuple[str, ...], value: object) -> dict[str, object]:
    tree: object = value
    for name in reversed(path):
        tree = {name: tree}
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("value", [10**30, 1e30, float("inf"), float("nan")])
def test_every_number_has_an_upper_bound(value: float) -> None:
    paths = list(numbers(Config))
    assert len(paths) > 100
    for path in paths:
        with pytest.raises(ValidationError, match=path[-1]):
            Config.model_validate(given(path, value))


@pytest.mark.parametrize(
    ("args", "engine"),
    [
        ({}, "pocketsphinx"),
        ({"profile": "sim"}, "sim"),
        ({"profile": "gpu"}, "voxtral-realtime"),
        ({"profile": "cpu", "transcriber": {"engine": "sim"}}, "sim"),
    ],
)
def test_a_profile_is_only_a_default(args: dict[str, object], engine: str) -> None:
    assert Config.model_validate(args).transcriber_engine == engine


def test_an_engine_of_ones_own_is_found_by_its_path() -> None:
    assert engine_class("transcriber", "tests.own_engine:Shout").name == "shout"
    with pytest.raises(ValueError, match="not one of"):
        engine_class("transcriber", "whisper")


def test_an_unknown_engine_fails_before_anything_is_deployed() -> None:
    with pytest.raises(ValueError, match="whisper"):
        build({"transcriber": {"engine": "whisper"}})


@pytest.mark.parametrize(
    "file", ["serve_config.yaml", "serve_config.gpu.yaml", "loadtest/bench.yaml"]
)
def test_the_files_we_ship_are_valid(file: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    deploy = yaml.safe_load((ROOT / file).read_text())
    ServeDeploySchema.model_validate(deploy)
    Config.model_validate(deploy["applications"][0]["args"])


def test_the_packages_own_file_is_the_one_at_the_top() -> None:
    assert DEFAULT.read_bytes() == (ROOT / "serve_config.yaml").read_bytes()


def test_a_cluster_gets_the_engines_of_its_profile() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    (installed,) = re.findall(r"'\.\[([a-z,]+)\]'", (ROOT / "cluster.yaml").read_text())
    named = {name for extra in installed.split(",") for name in (extra, *_within(extras[extra]))}
    assert {"cpu", "espeak"} <= named


def _within(requirements: list[str]) -> list[str]:
    """The extras of our own that an extra asks for."""
    found = [re.fullmatch(r"voxray\[([a-z0-9,]+)\]", one) for one in requirements]
    return [name for one in found if one for name in one[1].split(",")]


def test_sockets_outlive_a_change_of_replicas() -> None:
    environment = serve_environment(Config())
    assert int(environment["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 3600
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_servers_that_start_together_get_ports_of_their_own() -> None:
    names = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
    both = [serve_environment(Config(), any_ports=True) for _ in range(2)]
    assert len({one[name] for one in both for name in names}) == 4


@pytest.mark.parametrize(
    ("sessions", "per_replica", "replicas"), [(0, 10, 1), (10, 10, 1), (11, 10, 2), (95.5, 10, 10)]
)
def test_replicas_follow_sessions(sessions: float, per_replica: int, replicas: int) -> None:
    assert replicas_for(sessions, per_replica) == replicas


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("no.such.name.invalid", False),
    ],
)
def test_which_hosts_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("auth", "mode"),
    [
        ("keys", "keys"),
        ("on", "on"),
        (True, "on"),
        (False, "off"),
        ({"mode": False}, "off"),
        ({}, ""),
    ],
)
def test_auth_has_a_short_form_and_yaml_reads_off_as_false(auth: Any, mode: str) -> None:
    assert Config.model_validate({"auth": auth}).auth.mode == mode


@pytest.mark.parametrize(
    "auth", ["maybe", 1, None, {"mode": 1}, {"jwt": {"algorithms": ["HS256"]}}]
)
def test_auth_has_no_other_modes(auth: Any) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"auth": auth})


@pytest.mark.parametrize(
    ("jwks", "allowed"),
    [
        ("https://id.example/jwks", True),
        ("/etc/voxray/jwks.json", True),
        ("http://127.0.0.1:8080/jwks", True),
        ("http://id.example/jwks", False),
        ("http://127.0.0.1.evil.example/jwks", False),
        ("file:///etc/passwd", False),
        ("https://", False),
    ],
)
def test_public_keys_come_over_tls(jwks: str, allowed: bool) -> None:
    section = {"issuer": "i", "audience": "a", "jwks": jwks}
    with nullcontext() if allowed else pytest.raises(ValidationError, match="https"):
        Config.model_validate({"auth": {"jwt": section}})


@pytest.mark.parametrize("jwks", ["https://user:pass@id.example/jwks", "https://id.example/#jwks"])
def test_the_url_of_public_keys_has_no_secret(jwks: str) -> None:
    with pytest.raises(ValidationError, match="without a user"):
        JwtConfig(issuer="i", audience="a", jwks=jwks)


@pytest.mark.parametrize("missing", ["issuer", "audience", "jwks"])
def test_half_a_provider_is_refused(missing: str) -> None:
    section = {"issuer": "i", "audience": "a", "jwks": "jwks.json", missing: ""}
    with pytest.raises(ValidationError, match="all three"):
        Config.model_validate({"auth": {"jwt": section}})
