"""Objects in a folder and in S3, sealed or not."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.config import StorageConfig
from serve_app.errors import ClientError
from serve_app.jobs.job import Job, JobOptions, JobState
from serve_app.jobs.objects import Objects
from serve_app.security.keys import key_id
from tests.stores import BUCKET, S3

KEY = base64.b64encode(bytes(range(32))).decode()
BODY = bytes(n * 31 % 251 for n in range(300_000))


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "objects")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def objects(request: pytest.FixtureRequest, place: str) -> Iterator[Objects]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_STORAGE_KEY", KEY)
        yield Objects(StorageConfig(objects=place, encrypt=request.param))


def job_of(objects: Objects, id_: str = "job_1", tenant: str = "a") -> Job:
    key = objects.new_key(f"{tenant}/{id_}")
    empty: dict[str, Any] = dict.fromkeys(Job._fields)
    return Job(
        **{
            **empty,
            "id": id_,
            "tenant": tenant,
            "state": JobState.RUNNING,
            "options": JobOptions(),
            "sealed_key": key,
        }
    )


async def pieces(body: bytes, fail_at: int | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 50_000):
        if fail_at is not None and at >= fail_at:
            raise ClientError("upload_too_large", "too large")
        yield body[at : at + 50_000]


def found(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_any_range_of_an_object_can_be_read(objects: Objects) -> None:
    async def story() -> None:
        job = job_of(objects)
        await objects.put_stream(job.path("audio"), job.sealed_key, pieces(BODY))
        stored = await objects.open(job, "audio")
        assert stored and stored.size == len(BODY)
        for start, end in (
            (0, 10),
            (65_530, 65_550),
            (100_000, 299_999),
            (299_990, 400_000),
            (9, 9),
        ):
            assert await stored.read(start, end) == BODY[start:end]
        whole = b"".join([piece async for piece in stored.pieces(0, stored.size)])
        assert whole == BODY
        assert await objects.open(job, "other") is None and await objects.read(job, "other") is None

    play(story)


def test_an_upload_that_fails_leaves_nothing_behind(objects: Objects) -> None:
    async def story() -> None:
        job = job_of(objects, "job_failed")
        with pytest.raises(ClientError) as refused:
            await objects.put_stream(job.path("audio"), job.sealed_key, pieces(BODY, 200_000))
        assert refused.value.code == "upload_too_large"
        assert await objects.names("a/job_failed") == []

    play(story)


def test_deleting_takes_all_of_a_job_and_nothing_else(objects: Objects) -> None:
    async def story() -> None:
        job, other = job_of(objects, "job_x"), job_of(objects, "job_xy")
        for name in ("audio", "window/000001", "result"):
            await objects.put(job, name, b"1")
        await objects.put(other, "audio", b"2")
        await objects.delete("a/job_x")
        await objects.delete("a/job_x")
        assert await objects.names("a/job_x") == []
        assert await objects.read(other, "audio") == b"2"

    play(story)


def test_sealed_objects_belong_to_their_job_and_key(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", KEY)
    objects = Objects(StorageConfig(objects=place, encrypt=True))

    async def story() -> None:
        mine, theirs = job_of(objects), job_of(objects, "job_2", "b")
        await objects.put(mine, "audio", BODY)
        store, name = objects._store, mine.path("audio")
        raw = await store.read(name, 0, await store.size(name))
        assert BODY[:64] not in raw
        await store.put(theirs.path("audio"), pieces(raw))
        with pytest.raises(ClientError) as refused:
            await objects.read(theirs, "audio")
        assert refused.value.code == "storage_damaged"
        monkeypatch.setenv("VOXRAY_STORAGE_KEY", base64.b64encode(os.urandom(32)).decode())
        with pytest.raises(ClientError):
            await Objects(StorageConfig(objects=place, encrypt=True)).read(mine, "audio")
        monkeypatch.setenv("VOXRAY_STORAGE_KEY", KEY)
        off = Objects(StorageConfig(objects=place))
        assert off.new_key("a/job_9") is None and await off.read(mine, "audio") == BODY
        monkeypatch.delenv("VOXRAY_STORAGE_KEY")
        with pytest.raises(ClientError):
            await Objects(StorageConfig(objects=place)).read(mine, "audio")
        shredded = mine._replace(sealed_key=objects.new_key("a/job_1"))
        with pytest.raises(ClientError):
            await objects.read(shredded, "audio")

    play(story)


def test_the_key_may_stand_in_a_file_and_must_be_one(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    Objects(StorageConfig(objects=str(tmp_path / "o"), encrypt=True, key_file=str(file)))
    file.write_text("short")
    with pytest.raises(ValueError, match="32 bytes"):
        Objects(StorageConfig(objects=str(tmp_path / "o"), encrypt=True, key_file=str(file)))
    with pytest.raises(ValueError, match="VOXRAY_STORAGE_KEY"):
        Objects(StorageConfig(objects=str(tmp_path / "o"), encrypt=True))


def test_a_store_that_is_away_is_a_503_and_comes_back(s3: S3, tmp_path: Path) -> None:
    objects = Objects(StorageConfig(objects=f"s3://{BUCKET}/{tmp_path.name}"))

    async def story() -> None:
        job = job_of(objects)
        await objects.put(job, "audio", BODY)
        s3.stop()
        try:
            for ask in (
                objects.put(job, "a", b"1"),
                objects.read(job, "audio"),
                objects.names("a"),
            ):
                with pytest.raises(ClientError) as refused:
                    await ask
                assert refused.value.code == "storage_unavailable" and refused.value.retry_after_s
        finally:
            s3.start()
        await objects.put(job, "audio", BODY)

    play(story)


def test_a_key_may_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one in front of the old one: old jobs are read, new ones are sealed with the new."""
    old, new = KEY, base64.b64encode(os.urandom(32)).decode()
    config = StorageConfig(objects=str(tmp_path), encrypt=True)

    def with_keys(keys: str) -> Objects:
        monkeypatch.setenv("VOXRAY_STORAGE_KEY", keys)
        return Objects(config)

    def refusal(objects: Objects, job: Job) -> ClientError:
        with pytest.raises(ClientError) as refused:
            asyncio.run(objects.read(job, "audio"))
        return refused.value

    before = with_keys(old)
    first = job_of(before)
    asyncio.run(before.put(first, "audio", BODY))
    rotated = with_keys(f"{new},\n{old}\n")
    second = job_of(rotated, "job_2")
    asyncio.run(rotated.put(second, "audio", BODY))
    for job in (first, second):
        assert asyncio.run(rotated.read(job, "audio")) == BODY
    only_new = with_keys(new)
    assert asyncio.run(only_new.read(second, "audio")) == BODY
    missing = refusal(only_new, first)
    assert missing.code == "storage_key_missing"
    assert key_id(base64.b64decode(old)) in str(missing) and old not in str(missing)
    assert key_id(base64.b64decode(new)) in str(refusal(with_keys(old), second))


def test_a_full_disk_is_a_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(StorageConfig(objects=str(tmp_path)))
    objects.check_room(1)
    with pytest.raises(ClientError) as refused:
        objects.check_room(1 << 60)
    assert refused.value.code == "storage_full"


def test_a_folder_keeps_no_trace_of_what_was_deleted_cut_short_or_cancelled(tmp_path: Path) -> None:
    objects = Objects(StorageConfig(objects=str(tmp_path)))
    at_work = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"1"
        at_work.set()
        await asyncio.Event().wait()

    async def story() -> None:
        job = job_of(objects)
        for name in ("audio", "window/000001"):
            await objects.put(job, name, b"1")
        upload = asyncio.create_task(objects.put_stream(job.path("result"), None, endless()))
        await at_work.wait()
        staged = found(tmp_path, "a/job_1/result#*")[0]
        assert {name for name, _ in await objects.names("")} == {
            "a/job_1/audio",
            "a/job_1/window/000001",
        }
        upload.cancel()
        await asyncio.wait([upload])
        assert not staged.exists()
        killed = staged.with_name("audio#7")
        killed.write_bytes(b"1")
        await objects.forget_unfinished(killed.stat().st_mtime)
        assert killed.exists()
        await objects.forget_unfinished(killed.stat().st_mtime + 1)
        assert not killed.exists()
        await objects.delete("a/job_1")
        assert found(tmp_path, "*") == []

    play(story)


def test_an_upload_goes_on_when_its_folder_is_deleted_as_it_begins(tmp_path: Path) -> None:
    objects = Objects(StorageConfig(objects=str(tmp_path)))

    async def story() -> None:
        job = job_of(objects)
        for _ in range(50):
            await objects.put(job, "window/1", b"1")
            await asyncio.gather(objects.delete("a/job_1/window"), objects.put(job, "audio", b"2"))
            assert await objects.read(job, "audio") == b"2"
            await objects.delete("a/job_1")

    play(story)
