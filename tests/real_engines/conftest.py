"""Checkpoints of the real architectures, made once a run; and what the tests of real models share.

These tests run in an environment of their own: `make test-models`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest import checkpoints

os.environ["HF_HUB_OFFLINE"] = "1"

VOICES = (
    *("af_heart", "af_bella", "am_adam", "bf_emma", "ef_dora", "ff_siwis", "jf_alpha"),
    *("zf_xiaobei", "hf_alpha", "if_sara", "pf_dora"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/real_engines/" in str(item.path):
            item.add_marker(pytest.mark.models)
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def voxtral_realtime(folder: Path) -> Path:
    return checkpoints.voxtral_realtime(folder / "voxtral-realtime")


@pytest.fixture(scope="session")
def voxtral(folder: Path) -> Path:
    return checkpoints.voxtral(folder / "voxtral")


@pytest.fixture(scope="session")
def voxtral_transformers(folder: Path) -> Path:
    return checkpoints.voxtral_transformers(folder / "voxtral-transformers")


@pytest.fixture(scope="session")
def chat(folder: Path) -> Path:
    return checkpoints.chat(folder / "chat")


@pytest.fixture(scope="session")
def kokoro(folder: Path) -> Path:
    """Full size."""
    return checkpoints.kokoro(folder / "kokoro", VOICES)


@pytest.fixture(scope="session")
def small_kokoro(folder: Path) -> Path:
    return checkpoints.kokoro(folder / "small-kokoro", VOICES[:2], small=True)
