"""Resumable uploads: tus 1.0."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from loadtest.speech import wav
from serve_app.config import Config, StorageConfig
from serve_app.errors import ClientError
from serve_app.identity.principal import EVERYBODY
from serve_app.jobs import resumable, sweeping
from serve_app.jobs.database import Database
from serve_app.jobs.objects import Objects
from serve_app.jobs.resumable import ResumableUploads
from tests.fakes import models, served, working
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import ENDED, Client, code_of, running
from tests.jobs.test_search import config
from tests.waiting import wait_for

VERSION = {"Tus-Resumable": "1.0.0"}
PART = {**VERSION, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def client(tmp_path: Path, stored: None) -> Iterator[Client]:
    with running(config(tmp_path)) as client:
        yield client


def metadata(**fields: str) -> str:
    return ",".join(
        f"{name} {base64.b64encode(it.encode()).decode()}" for name, it in fields.items()
    )


def create(url: str, size: int, **fields: str) -> httpx.Response:
    headers = {**VERSION, "Upload-Length": str(size), "Upload-Metadata": metadata(**fields)}
    return httpx.post(f"{url}/v1/uploads", headers=headers, timeout=30)


def begun(url: str, size: int, **fields: str) -> str:
    answer = create(url, size, **fields)
    assert answer.status_code == 201, answer.text
    return f"{url}{answer.headers['location']}"


def send(upload: str, offset: int, body: bytes, **headers: str) -> httpx.Response:
    return httpx.patch(
        upload, content=body, headers={**PART, "Upload-Offset": str(offset), **headers}, timeout=60
    )


def test_an_upload_in_parts_becomes_a_job(client: Client, talk: bytes, tmp_path: Path) -> None:
    body = wav(talk)
    upload = begun(client.url, len(body), filename="böard.wav", diarize="false", language="en")
    for at in range(0, len(body), 100_000):
        head = httpx.head(upload)
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (
            str(at),
            str(len(body)),
        )
        assert head.headers["cache-control"] == "no-store" and "x-voxray-job" not in head.headers
        answer = send(upload, at, body[at : at + 100_000])
        assert answer.status_code == 204 and answer.headers["tus-resumable"] == "1.0.0"
    id_ = answer.headers["x-voxray-job"]
    assert httpx.head(upload).headers["x-voxray-job"] == id_
    job = client.until(id_, *ENDED)
    assert job["state"] == "completed" and job["file"] == {
        "name": "böard.wav",
        "bytes": len(body),
        "duration_s": job["file"]["duration_s"],
    }
    assert job["options"]["diarize"] is False and job["options"]["language"] == "en"
    original = httpx.get(f"{client.url}/v1/jobs/{id_}/audio", params={"original": "true"})
    assert original.content == body
    assert not list(tmp_path.rglob("parts")), "it is stored once"


def test_what_arrived_before_the_connection_broke_is_kept(client: Client, talk: bytes) -> None:
    body = wav(talk)
    upload = begun(client.url, len(body), filename="a.wav")
    host, _, port = client.url.removeprefix("http://").partition(":")
    path = upload.removeprefix(client.url)
    with socket.create_connection((host, int(port))) as raw:
        lines = [f"PATCH {path} HTTP/1.1", f"Host: {host}", "Upload-Offset: 0"]
        lines += [f"{name}: {value}" for name, value in PART.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        raw.sendall("\r\n".join(lines).encode() + body[:150_000])

    def kept() -> int:
        return int(httpx.head(upload).headers["upload-offset"])

    wait_for(kept)
    assert 0 < kept() <= 150_000, "what the system had not passed on is lost"
    answer = send(upload, kept(), body[kept() :])
    assert client.until(answer.headers["x-voxray-job"], *ENDED)["state"] == "completed"


def test_any_server_takes_the_next_part(tmp_path: Path, stored: None, talk: bytes) -> None:
    body, half = wav(talk), 50_000
    settings = config(tmp_path)
    with served(settings) as one, served(settings, models()) as other, working(settings):
        upload = begun(f"http://{one}", len(body), filename="a.wav")
        assert send(upload, 0, body[:half]).status_code == 204
        elsewhere = upload.replace(one, other)
        assert httpx.head(elsewhere).headers["upload-offset"] == str(half)
        assert send(elsewhere, half, body[half:]).headers["x-voxray-job"]


def test_offsets_must_fit(client: Client) -> None:
    upload = begun(client.url, 100)
    late = send(upload, 5, b"x")
    assert (late.status_code, code_of(late)) == (409, "upload_offset_conflict")
    much = send(upload, 0, b"x" * 101)
    assert (much.status_code, code_of(much)) == (413, "upload_too_large")
    assert httpx.head(upload).headers["upload-offset"] == "0"


def test_what_is_not_kept_leaves_nothing(tmp_path: Path, stored: None) -> None:
    """Neither a request without bytes, nor one that was slower than another."""

    async def story() -> None:
        storage = StorageConfig(directory=str(tmp_path))
        database = Database(storage.database_url)
        uploads = ResumableUploads(database, Objects(storage))
        begun = await uploads.create(EVERYBODY, 10, {})
        assert await uploads.append(begun, pieces()) == begun
        assert not parts(tmp_path)
        grown = await uploads.append(begun, pieces(b"abc"))
        assert (await uploads.get("default", begun.id)) == grown and grown.received == 3
        with pytest.raises(ClientError, match="Upload-Offset"):
            await uploads.append(begun, pieces(b"xyz"))
        assert [it.read_bytes() for it in parts(tmp_path)] == [b"abc"]
        await database.close()

    asyncio.run(story())


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def parts(folder: Path) -> list[Path]:
    return [it for it in folder.rglob("bytes") if it.is_file()]


def test_what_is_no_recording_is_refused_at_the_end(client: Client) -> None:
    upload = begun(client.url, 100, filename="a.txt")
    answer = send(upload, 0, b"x" * 100)
    assert code_of(answer) == "unsupported_media"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "10"}, 412),
        ({**VERSION}, 422),
        ({**VERSION, "Upload-Length": "0"}, 422),
        ({**VERSION, "Upload-Length": "x"}, 422),
        ({**VERSION, "Upload-Length": "999999999999"}, 413),
        ({**VERSION, "Upload-Length": "10", "Upload-Metadata": "filename ***"}, 400),
        ({**VERSION, "Upload-Length": "10", "Upload-Metadata": metadata(nonsense="1")}, 400),
        ({**VERSION, "Upload-Length": "10", "Upload-Metadata": metadata(speakers="99")}, 400),
    ],
)
def test_what_is_wrong_is_said_at_once(
    client: Client, headers: dict[str, str], status: int
) -> None:
    answer = httpx.post(f"{client.url}/v1/uploads", headers=headers)
    assert answer.status_code in (status, 400), answer.text


def test_parts_need_their_type_and_version(client: Client) -> None:
    upload = begun(client.url, 10)
    assert send(upload, 0, b"x", **{"Content-Type": "text/plain"}).status_code == 400
    assert send(upload, 0, b"x", **{"Tus-Resumable": "0.2.2"}).status_code == 412


def test_options_say_what_is_supported(client: Client) -> None:
    answer = httpx.request("OPTIONS", f"{client.url}/v1/uploads")
    assert answer.headers["tus-version"] == "1.0.0" and int(answer.headers["tus-max-size"]) > 0


def test_it_can_be_given_up(client: Client, tmp_path: Path) -> None:
    upload = begun(client.url, 10)
    send(upload, 0, b"x")
    assert httpx.delete(upload).status_code == 204
    assert httpx.head(upload).status_code == 404 and not list(tmp_path.rglob("upload_*"))


def test_it_ends_in_time(tmp_path: Path, stored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_S", 0.2)
    monkeypatch.setattr(resumable, "LIFETIME_S", 1.0)
    with running(config(tmp_path)) as client:
        upload = begun(client.url, 10)
        send(upload, 0, b"x")
        wait_for(lambda: httpx.head(upload).status_code == 404)
        wait_for(lambda: not list(tmp_path.rglob("upload_*")))


def test_too_many_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "MOST_OPEN", 2)
    for _ in range(2):
        begun(client.url, 10)
    answer = create(client.url, 10)
    assert (answer.status_code, code_of(answer)) == (429, "too_many_uploads")


def test_nobody_elses_upload_is_there(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    sealed: dict[str, Any] = config(tmp_path).model_dump(exclude_unset=True)
    sealed["storage"] = {"directory": str(tmp_path), "encrypt": True}
    settings = with_keys(Config.model_validate(sealed), "acme", "bolt")
    body = wav(talk)
    with running(settings) as client:
        headers = {**VERSION, "Upload-Length": str(len(body)), **bearer("acme")}
        made = httpx.post(f"{client.url}/v1/uploads", headers=headers)
        upload = f"{client.url}{made.headers['location']}"
        assert send(upload, 0, body[:50], **bearer("bolt")).status_code == 404
        assert httpx.head(upload, headers=bearer("bolt")).status_code == 404
        assert send(upload, 0, body[:50_000], **bearer("acme")).status_code == 204
        (part,) = parts(tmp_path)
        assert b"RIFF" not in part.read_bytes()
        answer = send(upload, 50_000, body[50_000:], **bearer("acme"))
        assert answer.headers["x-voxray-job"]
        httpx.delete(f"{client.url}/v1/tenants/acme/data", headers=bearer("acme"), timeout=60)
        assert httpx.head(upload, headers=bearer("acme")).status_code == 404
