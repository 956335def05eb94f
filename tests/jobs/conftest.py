"""What tests of recordings share."""

import pytest


@pytest.fixture
def stored(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that the test starts use this database: it runs with each."""
    monkeypatch.setenv("VOXRAY_DATABASE_URL", database_url)
