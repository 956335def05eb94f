"""What a server writes is its owner's only."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app.config import StorageConfig
from serve_app.jobs.objects import Objects
from serve_app.security.owner_only import make_folder, tighten
from tests.jobs.test_jobs import Client, config, running


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def exposed(*folders: Path) -> list[str]:
    """What others may read, write or enter."""
    return [
        str(it) for folder in folders for it in (folder, *folder.rglob("*")) if mode(it) & 0o077
    ]


def mode(file: Path) -> int:
    """0 for one that was deleted meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(file.stat().st_mode)
    return 0


def worked_in(folder: Path, talk: bytes) -> None:
    """A server and a worker have written everything that a job has, while they still run."""
    with running(config(folder)) as client:
        Client.done(client, wav(talk))
        client.submit(wav(talk[:3200]), name="cut.wav")
        assert exposed(folder) == []
        names = {it.name for it in folder.rglob("*")}
        assert {"voxray.db", "voxray.db-wal", "voxray.db-shm", "voxray.lock", "audio"} <= names


def test_all_that_a_server_writes_is_its_owners(tmp_path: Path, talk: bytes) -> None:
    worked_in(tmp_path / "new/data", talk)
    assert exposed(tmp_path / "new") == []


def test_what_an_older_server_left_open_is_closed(tmp_path: Path, talk: bytes) -> None:
    data = tmp_path / "data"
    worked_in(data, talk)
    for it in (data, *data.rglob("*")):
        it.chmod(0o755 if it.is_dir() else 0o644)
    with running(config(data)) as client:
        assert client.get("/v1/jobs").status_code == 200
        reached = [it for it in data.rglob("*") if not closed_above(data, it)]
        assert exposed(data) and [it for it in reached if str(it) in exposed(data)] == []


def closed_above(top: Path, file: Path) -> bool:
    """Others cannot reach it, because they cannot enter a folder that it is in."""
    above = [it for it in file.parents if it.is_relative_to(top)]
    return any(not mode(it) & 0o077 for it in above)


def test_the_folder_itself_is_left_alone_if_it_has_other_files(tmp_path: Path, talk: bytes) -> None:
    (tmp_path / "shared").mkdir()
    theirs = tmp_path / "shared/readme.txt"
    theirs.write_text("of another program")
    with running(config(tmp_path / "shared")) as client:
        Client.done(client, wav(talk))
        assert exposed(tmp_path / "shared") == [str(tmp_path / "shared"), str(theirs)]


def test_a_store_beside_other_things_closes_only_what_is_its_own(tmp_path: Path) -> None:
    theirs, tenant = tmp_path / "photos", tmp_path / "acme"
    theirs.mkdir(0o755)
    (tenant / f"job_{'0' * 32}").mkdir(parents=True, mode=0o755)
    Objects(StorageConfig(objects=str(tmp_path)))
    assert str(theirs) in exposed(tmp_path) and str(tenant) not in exposed(tmp_path)


def test_folders_that_are_missing_are_made_and_others_keep_their_mode(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o755)
    make_folder(tmp_path / "there/a/b")
    make_folder(tmp_path / "there/a/b")
    assert exposed(tmp_path / "there") == [str(tmp_path / "there")]


def test_what_cannot_be_closed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o644)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refused)
    with caplog.at_level(logging.WARNING, "voxray.storage"):
        tighten([file, tmp_path / "absent"])
    assert [it.getMessage() for it in caplog.records] == ["file_exposed"]
