"""Uploads are scanned before they are accepted: on every path, and closed when the scan fails."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

from loadtest.speech import wav
from serve_app.api import create_app
from serve_app.config import Config
from serve_app.config.jobs import JobsConfig
from serve_app.config.limits import Limits
from serve_app.config.uploads import UploadsConfig
from serve_app.errors import ClientError
from serve_app.security.bodies import bounds_of_uploads
from serve_app.security.scanning import Scanner
from tests.fakes import models, served
from tests.stores import absent
from tests.waiting import until, wait_for

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""What every virus scanner takes for a virus; in two parts, so that none stops at this file."""

FINDS_EICAR = "grep -qaF EICAR-STANDARD && exit 1; exit 0"
BY_THE_LAST_WORD = "case $(tail -c 7) in CRASHES) exit 9;; *H+H\\*) exit 1;; esac"
PATHS = sorted(set(bounds_of_uploads(Limits(), JobsConfig())) - {"/v1/audio/translations"})


def script(folder: Path, body: str) -> str:
    """A command that runs `body`."""
    file = folder / "scan.sh"
    file.write_text(f"{body}\n")
    return f"sh {file}"


def scanned(content: bytes, command: str, **options: Any) -> str:
    """The code of the refusal; "" for a file that is accepted."""
    scanner = Scanner(UploadsConfig(scan=command, **options))
    with tempfile.TemporaryFile() as file:
        file.write(content)
        try:
            asyncio.run(scanner.check(file))
        except ClientError as error:
            assert error.retry_after_s if error.code == "scan_failed" else True
            return error.code
    return ""


def test_the_command_gets_the_whole_file(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    assert scanned(content, script(tmp_path, f"cat > {tmp_path}/copy")) == ""
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("exit 0", ""),
        ("exit 1", "upload_refused"),
        ("exit 2", "scan_failed"),
        ("exit 127", "scan_failed"),
        ("kill -SEGV $$", "scan_failed"),
        ("kill -KILL $$", "scan_failed"),
        (FINDS_EICAR, ""),
        ("head -c 50000000 /dev/zero; exit 0", ""),
        ("head -c 50000000 /dev/zero >&2; exit 1", "upload_refused"),
        ("exec <&-; exit 0", ""),
    ],
)
def test_its_exit_status_decides(tmp_path: Path, body: str, code: str) -> None:
    assert scanned(b"some words" * 100_000, script(tmp_path, body)) == code


def test_a_file_with_the_string_is_refused(tmp_path: Path) -> None:
    assert scanned(wav(bytes(3200)) + EICAR, script(tmp_path, FINDS_EICAR)) == "upload_refused"


def test_a_command_that_is_not_there_accepts_nothing(tmp_path: Path) -> None:
    assert scanned(b"x", "/no/such/scanner -") == "scan_failed"
    assert scanned(b"x", str(tmp_path)) == "scan_failed"


def test_there_is_no_shell(tmp_path: Path) -> None:
    assert scanned(b"x", f"true; touch {tmp_path}/made") == "scan_failed"
    assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match="quotation"):
        UploadsConfig(scan="scan 'x")


def test_one_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    command = script(tmp_path, f"sleep 60 & echo $! $$ > {tmp_path}/pids; wait")
    assert scanned(b"x", command, scan_timeout_s=0.5) == "scan_failed"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_for(lambda: not any(map(is_running, pids)), 5)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_one_whose_request_is_cancelled_is_ended(tmp_path: Path) -> None:
    scanner = Scanner(UploadsConfig(scan=script(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60")))

    async def go() -> None:
        with tempfile.TemporaryFile() as file:
            scan = asyncio.create_task(scanner.check(file))
            await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            scan.cancel()
            await asyncio.wait([scan])
            assert scan.cancelled()

    asyncio.run(go())
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_it_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_API_KEY", "canary-of-the-environment")
    assert scanned(b"x", script(tmp_path, f"env > {tmp_path}/env")) == ""
    told = (tmp_path / "env").read_text()
    assert "PATH=" in told and "canary" not in told


def test_only_some_run_at_once(tmp_path: Path) -> None:
    """Each adds itself, and writes how many there are."""
    work = tmp_path / "at-work"
    work.mkdir()
    command = script(
        tmp_path, f"touch {work}/$$; ls {work} | wc -l >> {tmp_path}/seen; sleep 0.1; rm {work}/$$"
    )
    scanner = Scanner(UploadsConfig(scan=command, scans_at_once=2))

    async def one() -> None:
        with tempfile.TemporaryFile() as file:
            await scanner.check(file)

    async def go() -> None:
        await asyncio.gather(*(one() for _ in range(6)))

    asyncio.run(go())
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 6 and max(seen) == 2


class Served:
    """A server with a scanning command."""

    def __init__(self, address: str, folder: Path) -> None:
        self.url, self.folder = f"http://{address}", folder

    def send(self, path: str, content: bytes) -> httpx.Response:
        files = {"file": ("talk.wav", content)}
        return httpx.post(f"{self.url}{path}", files=files, timeout=30)

    def stored(self) -> list[Path]:
        return [it for it in self.folder.rglob("*") if it.name == "audio"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("scanned")
    args = {
        "profile": "sim",
        "storage": {"directory": str(folder / "stored")},
        "uploads": {"scan": script(folder, BY_THE_LAST_WORD)},
    }
    with served(Config.model_validate(args)) as address:
        yield Served(address, folder / "stored")


def test_no_path_that_takes_a_file_is_forgotten() -> None:
    documented = create_app(models(), Config(profile="sim")).openapi()["paths"]
    forms = {
        path
        for path, methods in documented.items()
        for it in methods.values()
        if "multipart/form-data" in it.get("requestBody", {}).get("content", {})
    }
    assert len(forms) > 4 and forms <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_accepts_only_what_is_clean(server: Served, path: str, speech: bytes) -> None:
    before = server.stored()
    refused = server.send(path, wav(speech) + EICAR)
    assert (refused.status_code, code_of(refused)) == (422, "upload_refused")
    unknown = server.send(path, wav(speech) + b"CRASHES")
    assert (unknown.status_code, code_of(unknown)) == (503, "scan_failed")
    assert int(unknown.headers["retry-after"]) > 0
    assert server.stored() == before
    assert server.send(path, wav(speech)).status_code in (200, 202)


def code_of(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def test_a_body_that_is_the_file_itself_is_scanned(server: Served, speech: bytes) -> None:
    for path in ("/v1/transcribe", "/transcribe/file"):
        answer = httpx.post(f"{server.url}{path}", content=wav(speech) + EICAR, timeout=30)
        assert code_of(answer) == "upload_refused"


def test_a_refused_job_is_none(server: Served, speech: bytes) -> None:
    before = httpx.get(f"{server.url}/v1/jobs").json()["data"]
    assert server.send("/v1/jobs", wav(speech) + EICAR).status_code == 422
    assert httpx.get(f"{server.url}/v1/jobs").json()["data"] == before


def test_what_is_stored_is_what_was_sent(server: Served, speech: bytes) -> None:
    sent = wav(speech * 3)
    job = server.send("/v1/jobs", sent).json()["id"]
    assert httpx.get(f"{server.url}/v1/jobs/{job}/audio?original=true").content == sent


def test_clamav_finds_eicar(tmp_path: Path, speech: bytes) -> None:
    """Its own database is not needed: a signature of one line is."""
    if not shutil.which("clamscan"):
        absent("ClamAV is not installed")
    (tmp_path / "eicar.ndb").write_text(f"Eicar-Test:0:*:{EICAR.hex()}\n")
    command = f"clamscan --no-summary -d {tmp_path}/eicar.ndb -"
    assert scanned(wav(speech), command) == ""
    assert scanned(EICAR, command) == "upload_refused"
    assert scanned(wav(speech) + EICAR, command) == "upload_refused"
    assert scanned(b"x", f"clamscan -d {tmp_path}/none.ndb -") == "scan_failed"
