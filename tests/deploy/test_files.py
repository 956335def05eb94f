"""The files for containers and services say what they should, as far as that shows without running them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.server import BIN

ROOT = Path(__file__).parent.parent.parent
COMPOSE = [ROOT / "compose.yaml", ROOT / "compose.gpu.yaml"]
UNIT = ROOT / "deploy/systemd/voxray.service"
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


def filled_in(file: Path) -> str:
    """The file with its variables replaced by their defaults, or by a word."""
    text = file.read_text()
    return VARIABLE.sub(lambda it: it[2] if ":-" in it[0] else "secret", text)


def services(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(filled_in(file))["services"]
    return found


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_a_compose_file_is_valid_by_the_specification(file: Path) -> None:
    assert PyCompose.from_yaml(filled_in(file)).service_names() == list(services(file))
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_yaml(filled_in(file).replace("image:", "prots:"))


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for it in services(COMPOSE[0]).values() for port in it.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_has_no_secret_in_it() -> None:
    for name, value in re.findall(
        r"^ *(\w*(?:PASSWORD|SECRET|KEY(?!_ID))\w*): (.*)$", COMPOSE[0].read_text(), re.M
    ):
        assert VARIABLE.fullmatch(value) and ":?" in value, name


def test_compose_waits_for_what_is_healthy() -> None:
    all_of_them = services(COMPOSE[0])
    for name, service in all_of_them.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy", name
            assert "healthcheck" in all_of_them[other] or other == "voxray"  # the image has one


def test_what_compose_mounts_exists() -> None:
    for service in services(COMPOSE[0]).values():
        for source, *_ in (volume.split(":") for volume in service.get("volumes", [])):
            assert not source.startswith(".") or (ROOT / source).exists(), source


def test_a_build_gets_what_the_package_is_made_of() -> None:
    kept = re.findall(r"^!(\S+?)/?$", (ROOT / ".dockerignore").read_text(), re.M)
    assert all((ROOT / path).exists() for path in kept)
    copied = re.findall(r"^COPY (?!--from)(\S+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    assert {path.split("/")[0] for path in copied if path != "."} <= set(kept)


def test_the_image_uses_a_python_that_the_package_allows_and_no_root() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.M)
    assert "ARG PYTHON=docker.io/library/python:3.11-slim-" in stages[0]
    targets = {re.search(r"AS (\S+)", stage)[1]: stage for stage in stages[1:]}  # type: ignore[index]
    for name in ("runtime", "gpu"):
        assert re.findall(r"^USER (.*)$", targets[name], re.M)[-1] == "10001", name
    assert list(targets)[-1] == "cpu", "the default"
    assert targets["cpu"].startswith("runtime ") and targets["gpu"].startswith("runtime ")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/voxray/bin/", f"{BIN}/"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    ours = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    assert ours == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
    )
    assert rated.returncode == 0, rated.stdout  # at most 2.0 of 10


def test_the_unit_signals_only_the_first_process() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M))
    assert (unit["KillMode"], unit["KillSignal"]) == ("mixed", "SIGTERM")
