"""What the command says and leaves behind when something goes wrong."""

import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from loadtest.speech import wav
from serve_app.cli import FAILED, NO_SERVER, USAGE
from serve_app.cli.main_jobs import StateName
from serve_app.cli.options import FormatName, ProfileName
from serve_app.config import Config
from serve_app.jobs.export import FORMS
from serve_app.jobs.job import JobState
from tests.fakes import served
from tests.jobs.test_jobs import config, running, without_worker
from tests.server import BIN, voxray

NOBODY = ("--server", "http://127.0.0.1:9")


@pytest.fixture
def recording(tmp_path: Path, speech: bytes) -> Path:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(speech))
    return file


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    with served() as address:
        yield "--server", f"http://{address}"


@contextmanager
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """A terminal's file descriptor, and what was written to it once the block ends."""
    master, slave = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(master, 65536):
                written.append(piece)
        except OSError:
            return  # Linux says EIO when the last writer is gone

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield slave, written
    finally:
        os.close(slave)
        reader.join(10)
        os.close(master)


def test_no_audio_is_sent_after_a_refused_start(
    recording: Path, server: tuple[str, str], tmp_path: Path
) -> None:
    grammar = tmp_path / "large.jsgf"
    grammar.write_text("#JSGF V1.0;\n" + "// much\n" * 5000)
    result = voxray("transcribe", str(recording), "--grammar", str(grammar), *server)
    assert result.returncode == FAILED and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and "grammar" in result.stderr


@pytest.mark.parametrize("bad", ["missing/out", "folder", "speech.wav/out"])
def test_a_file_that_cannot_be_written_is_found_before_the_work(
    recording: Path, bad: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    out = str(tmp_path / bad)
    for command in (
        ["transcribe", str(recording), "-o", out],
        ["say", "hi", "--format", "wav", "-o", out],
        ["talk", "--in", str(recording), "-o", out],
        ["jobs", "export", "some-id", "-o", out],
    ):
        result = voxray(*command, *NOBODY)
        assert result.returncode == FAILED, result.stderr
        assert f"cannot write {out}" in result.stderr and "Traceback" not in result.stderr


def test_a_results_folder_that_cannot_be_made_is_found_before_the_work(recording: Path) -> None:
    result = voxray("jobs", "submit", str(recording), "-o", f"{recording}/out", *NOBODY)
    assert result.returncode == FAILED and "cannot write" in result.stderr


def test_a_failed_command_leaves_no_file(
    recording: Path, server: tuple[str, str], tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a sound")
    kept = tmp_path / "kept.wav"
    kept.write_bytes(b"from yesterday")
    before = sorted(tmp_path.iterdir())
    new = str(tmp_path / "out.wav")
    for command in (
        ["transcribe", str(recording), str(text), "-o", new],
        ["say", "hi", "--voice", "nobody", "-o", new],
        ["say", "hi", "--voice", "nobody", "-o", str(kept)],
        ["talk", "--in", str(recording), "--voice", "nobody", "-o", new],
        ["jobs", "export", "no-such-job", "-o", f"{new}.txt"],
    ):
        assert voxray(*command, *server).returncode == FAILED, command
    assert sorted(tmp_path.iterdir()) == before and kept.read_bytes() == b"from yesterday"


def test_an_unknown_job_is_not_waited_for(server: tuple[str, str]) -> None:
    began = time.monotonic()
    result = voxray("jobs", "watch", "no-such-job", *server)
    assert result.returncode == FAILED and "no job" in result.stderr
    assert time.monotonic() - began < 20  # a server that is away is waited for 60 s


def test_a_job_without_a_result_is_shown(tmp_path: Path, recording: Path) -> None:
    with without_worker(tmp_path / "data") as client:
        server = ("--server", client.url)
        id_ = voxray("jobs", "submit", str(recording), *server).stdout.strip()
        queued = voxray("jobs", "get", id_, *server)
        assert queued.returncode == 0 and "speech.wav is queued" in queued.stderr
        assert voxray("jobs", "export", id_, *server).returncode == FAILED
        voxray("jobs", "cancel", id_, *server)
        cancelled = voxray("jobs", "get", id_, *server)
        assert cancelled.returncode == 0 and "speech.wav is cancelled" in cancelled.stderr
        assert '"state": "cancelled"' in cancelled.stdout
        watched = voxray("jobs", "watch", id_, *server)
        assert watched.returncode == FAILED and "speech.wav: cancelled" in watched.stderr


def test_binary_goes_to_pipes_and_files_but_not_to_terminals(
    tmp_path: Path, recording: Path
) -> None:
    with running(config(tmp_path / "data")) as client:
        server = ("--server", client.url)
        id_ = voxray("jobs", "submit", str(recording), "--watch", *server).stdout.strip()
        for command in (
            ["jobs", "export", id_, "--format", "docx"],
            ["say", "Hi.", "-o", "-"],
        ):
            arguments = [str(BIN / "voxray"), *command, *server]
            with terminal() as (tty, written):
                done = subprocess.run(arguments, stdout=tty, stderr=subprocess.PIPE, timeout=60)
            assert done.returncode == USAGE and b"use -o FILE" in done.stderr and not written
            piped = subprocess.run(arguments, capture_output=True, timeout=60)
            assert piped.returncode == 0 and piped.stdout[:2] in (b"PK", b"RI")
        out = tmp_path / "talk.srt"
        assert voxray("jobs", "export", id_, "-o", str(out), *server).returncode == 0
        assert out.read_text().startswith("1\n00:")  # the format is the name's


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (["run", "--profile", "nope"], ("cpu", "gpu", "sim")),
        (["models", "list", "--profile", "nope"], ("cpu", "gpu", "sim")),
        (["jobs", "export", "id", "--format", "nope"], ("txt", "docx")),
        (["jobs", "submit", "/tmp", "--format", "nope"], ("txt", "docx")),
        (["jobs", "submit", "/tmp", "--channels", "nope"], ("mix", "speakers")),
        (["jobs", "submit", "/tmp", "--priority", "11"], ("less than or equal to 10",)),
        (["jobs", "list", "--state", "nope"], ("queued", "cancelled")),
        (["say", "hi", "-o", "-", "--format", "nope"], ("mp3", "pcm")),
        (["say", "hi", "-o", "out.doc"], (".mp3", ".pcm")),
        (["talk", "-o", "out.mp3"], (".wav",)),
        (["jobs", "export", "id", "-o", "t.xyz"], (".txt", ".docx")),
        (["status", "--server", "localhost"], ("http://127.0.0.1:8000",)),
    ],
)
def test_a_wrong_choice_gets_the_allowed_ones(command: list[str], allowed: tuple[str, ...]) -> None:
    result = voxray(*command)
    assert result.returncode == USAGE, result.stderr
    assert all(choice in result.stderr for choice in allowed), result.stderr


def test_subtitles_of_several_recordings_do_not_go_into_one_file(
    recording: Path, tmp_path: Path
) -> None:
    for name, *option in (("two.srt",), ("two.vtt",), ("two", "--srt")):
        out = tmp_path / name
        result = voxray(
            "transcribe", str(recording), str(recording), *option, "-o", str(out), *NOBODY
        )
        assert result.returncode == USAGE and "voxray jobs submit" in result.stderr
        assert not out.exists()
    printed = voxray("transcribe", str(recording), str(recording), "--srt", *NOBODY)
    assert printed.returncode == USAGE and not printed.stdout


def test_the_choices_are_the_servers() -> None:
    assert set(get_args(FormatName)) == set(FORMS)
    assert set(get_args(StateName)) == {state.value for state in JobState}
    assert get_args(ProfileName) == get_args(Config.model_fields["profile"].annotation)


def test_skipped_files_of_a_folder_are_named(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a recording")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty.wav").touch()
    with served(config(tmp_path.parent / f"{tmp_path.name}-data")) as address:
        server = ("--server", f"http://{address}")
        result = voxray("jobs", "submit", str(tmp_path), *server)
        assert result.returncode == FAILED and len(result.stdout.split()) == 1
        assert f"skipped {tmp_path}/notes.txt: .txt is not an audio format" in result.stderr
        assert f"skipped {tmp_path}/gone.wav" in result.stderr
        assert f"{tmp_path}/empty.wav: the server refused" in result.stderr
        (tmp_path / "empty.wav").unlink()
        again = voxray("jobs", "submit", str(tmp_path), *server)
        assert again.returncode == 0 and "notes.txt" in again.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("applications: [{args: {profil: cpu}}]", ("profil: unknown key; did you mean profile?",)),
        (
            "applications: [{args: {vad: {min_speach_ms: 5}}}]",
            ("vad.min_speach_ms: unknown key; did you mean min_speech_ms?", "aggressiveness"),
        ),
        ("applications: [{args: {profile: nope}}]", ("profile: ", "'cpu', 'gpu' or 'sim'")),
        ("applications: [{args: {vad: 3, chat: 4}}]", ("vad: ", "chat: ")),
        ("applications: [", ("cannot be read",)),
        ("- a list", ("needs `applications`",)),
        ("", ("needs `applications`",)),
        ("applications: [{args: [1]}]", ("needs `applications`",)),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["env"], ["models", "list"]])
def test_a_wrong_configuration_is_explained(
    tmp_path: Path, command: list[str], text: str, told: tuple[str, ...]
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text)
    result = voxray(*command, "--config", str(file))
    assert result.returncode == FAILED and "Traceback" not in result.stderr
    assert str(file) in result.stderr and all(part in result.stderr for part in told), result.stderr


def test_a_missing_configuration_is_wrong_usage(tmp_path: Path) -> None:
    result = voxray("run", "--config", str(tmp_path / "none.yaml"))
    assert result.returncode == USAGE and "does not exist" in result.stderr


def test_bars_are_for_terminals_only(tmp_path: Path, recording: Path) -> None:
    with running(config(tmp_path / "data")) as client:
        server = ("--server", client.url)
        for command in (
            ["transcribe", str(recording)],
            ["jobs", "submit", str(recording), "--watch"],
        ):
            plain = voxray(*command, *server)
            assert plain.returncode == 0 and plain.stderr == ""
            with terminal() as (tty, written):
                arguments = [str(BIN / "voxray"), *command, *server]
                subprocess.run(arguments, stdout=subprocess.PIPE, stderr=tty, timeout=60)
            assert "%" in b"".join(written).decode() and "━".encode() in b"".join(written)


def test_a_proxy_does_not_come_between_the_command_and_this_machine(
    recording: Path, server: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for command in (["transcribe", str(recording)], ["chat", "hi"], ["status"]):
        assert voxray(*command, *server).returncode == 0


def test_watching_without_a_server_fails_at_once() -> None:
    began = time.monotonic()
    assert voxray("jobs", "watch", "any", *NOBODY).returncode == NO_SERVER
    assert time.monotonic() - began < 20
