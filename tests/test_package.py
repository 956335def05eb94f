"""What is published: metadata, packages, and the locked versions that `make` installs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_namespace_packages

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
LOCKS = {
    "run": ("all",),
    "test": ("all", "loadtest", "test"),
    "gpu": ("all", "gpu", "kokoro"),
}
IN_THE_CONTAINER = {"python_version": "3.11"}


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for with these extras; extras of voxray itself are opened."""
    lines = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"]["build"]]
    found = [Requirement(line) for line in lines]
    for extra in extras:
        for asked in map(Requirement, EXTRAS[extra]):
            found += wanted(tuple(asked.extras)) if asked.name == "voxray" else [asked]
    return found


def locked(lock: str) -> dict[str, list[Version]]:
    versions: dict[str, list[Version]] = {}
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(Version(version))
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_satisfies_the_project(lock: str) -> None:
    versions = locked(lock)
    for asked in wanted(LOCKS[lock]):
        if lock == "gpu" and asked.marker and not asked.marker.evaluate(IN_THE_CONTAINER):
            continue
        found = versions.get(canonicalize_name(asked.name), [])
        assert any(it in asked.specifier for it in found), f"{asked}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_version_has_hashes_and_none_comes_from_elsewhere(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"^(?=\w)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.M)
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())
    assert "://" not in text and not re.search(r"^--?(?!\w*hash)", text, re.MULTILINE)
    assert ("vllm" in locked(lock)) == (lock == "gpu")


def test_what_runs_is_what_was_tested() -> None:
    tested = locked("test")
    assert {name: tested.get(name) for name in locked("run")} == locked("run")


def test_every_folder_of_code_is_published() -> None:
    find = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    found = set(find_namespace_packages(str(ROOT), find.get("exclude", ()), find["include"]))
    folders = {
        ".".join(file.relative_to(ROOT).parent.parts)
        for package in ("serve_app", "deployments")
        for file in (ROOT / package).rglob("*.py")
    }
    assert folders <= found and not any("__pycache__" in name for name in found)
