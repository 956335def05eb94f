"""What tests share: speech, made on the spot."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis  # noqa: F401 - early: at a session's end Python 3.11 may fail to
import numpy as np
import pytest

from loadtest.speech import conversation, speak
from tests import stores
from tests.stores import S3, Postgres

collect_ignore = [] if find_spec("torch") else ["real_engines"]  # `make test-models` has it


@pytest.fixture(scope="session", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of a test is kept where a person keeps recordings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


SAID = "The weather in Paris will be sunny and warm tomorrow."


@pytest.fixture(scope="session")
def speech() -> bytes:
    """One sentence with silence before and after, 16 kHz pcm_s16le."""
    pause = np.zeros(12_800, np.int16)
    return np.concatenate([pause, speak(SAID), pause]).tobytes()


@pytest.fixture(scope="session")
def talk() -> bytes:
    """Four sentences with pauses, 16 kHz pcm_s16le."""
    return conversation()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with stores.postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/voxray.db"
    server: Postgres = request.getfixturevalue("postgres")
    server.clear()
    return server.url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with stores.s3() as server:
        yield server
