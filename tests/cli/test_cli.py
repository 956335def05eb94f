"""The command without a server, and where there is no microphone."""

import errno
import json
import os
import socket
import time
import wave
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app import __version__
from serve_app.cli import FAILED, NO_SERVER, USAGE
from serve_app.cli.config_file import DEFAULT
from serve_app.cli.listen_address import ListenAddress
from serve_app.cli.server import _announce
from tests.fakes import served
from tests.jobs.test_jobs import config, running
from tests.ports import needs_ipv6
from tests.server import voxray

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "command",
    ["", "run", "transcribe", "mic", "say", "chat", "talk", "status", "env", "jobs", "jobs submit"],
)
def test_every_command_has_help(command: str) -> None:
    shown = voxray(*command.split(), "--help")
    assert shown.returncode == 0 and "Usage" in shown.stdout


def test_the_version_is_the_packages() -> None:
    assert voxray("--version").stdout == f"voxray {__version__}\n"


def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(bytes(3200)))
    out = str(tmp_path / "out.wav")
    for command in (
        ["transcribe", str(file)],
        ["status"],
        ["jobs", "submit", str(file)],
        ["jobs", "list"],
        ["say", "hi", "-o", out],
        ["chat", "hi"],
        ["talk", "--in", str(file), "--out", out],
    ):
        result = voxray(*command, "--server", NOBODY)
        assert result.returncode == NO_SERVER
        assert "voxray run" in result.stderr and "still starting" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_missing_microphone_is_reported() -> None:
    result = voxray("mic", "--server", NOBODY)
    assert result.returncode == FAILED and "no microphone" in result.stderr
    result = voxray("talk", "--server", NOBODY)
    assert result.returncode == FAILED and "--in FILE" in result.stderr


def test_a_conversation_from_file_to_file(tmp_path: Path, speech: bytes) -> None:
    question, answer = tmp_path / "question.wav", tmp_path / "answer.wav"
    question.write_bytes(wav(speech))
    with served() as address:
        server = ("--server", f"http://{address}")
        talked = voxray("talk", "--in", str(question), "--out", str(answer), *server)
        assert f"wrote {answer}\n" in talked.stderr
        assert talked.returncode == 0 and "it:  The sim answers," in talked.stderr
        assert wave.open(str(answer)).getnframes() == pytest.approx(0.8 * 24_000, rel=0.01)
        bad = voxray("talk", "--in", str(question), "--out", str(answer), "--voice", "bob", *server)
        assert bad.returncode == FAILED and "bob" in bad.stderr
        assert voxray("chat", "hello", *server).stdout.startswith("The sim answers,")
        for suffix in ("mp3", "flac"):
            spoken = voxray("say", "Hi there.", "-o", str(tmp_path / f"s.{suffix}"), *server)
            assert spoken.stderr == f"wrote {tmp_path}/s.{suffix}\n"
            assert spoken.returncode == 0 and (tmp_path / f"s.{suffix}").stat().st_size > 500
        unknown = voxray("say", "Hi.", "-o", str(tmp_path / "s.doc"), *server)
        assert unknown.returncode == USAGE and ".mp3" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [["transcribe"], ["transcribe", "/no/such/file"], ["dance"], ["run", "--port", "x"]],
)
def test_wrong_usage_is_two(arguments: list[str]) -> None:
    assert voxray(*arguments).returncode == 2


def test_a_configuration_that_cannot_be_meant_is_named(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    config.write_text("applications: [{args: {profil: cpu}}]\n")
    result = voxray("run", "--config", str(config))
    assert result.returncode == FAILED and "profil" in result.stderr


def test_the_environment_is_fit_for_eval() -> None:
    result = voxray("env")
    assert "export RAY_SERVE_ENABLE_HA_PROXY=1\n" in result.stdout
    assert all(line.startswith("export ") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("listen", "exported"),
    [
        (("127.0.0.1", 8000), None),
        (("0.0.0.0", 8000), None),
        (("127.0.0.1", 8311), "export VOXRAY_SERVER=http://127.0.0.1:8311\n"),
        (("::", 8311), "export VOXRAY_SERVER=http://127.0.0.1:8311\n"),
        (("::1", 8000), "export VOXRAY_SERVER=http://[::1]:8000\n"),
        (("0.0.0.0", 8000, True), "export VOXRAY_SERVER=https://127.0.0.1:8000\n"),
    ],
)
def test_a_server_at_another_address_says_how_to_reach_it(
    capsys: pytest.CaptureFixture[str],
    listen: tuple[str, int] | tuple[str, int, bool],
    exported: str | None,
) -> None:
    _announce(ListenAddress(*listen), "127.0.0.1:8265", total_s=20, ray_s=5)
    told = capsys.readouterr().err
    assert "voxray is ready" in told
    assert exported in told if exported else "VOXRAY_SERVER" not in told
    assert "Ray's dashboard http://127.0.0.1:8265" in told


def test_the_configuration_is_the_given_or_the_local_or_the_packaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, here = tmp_path / "given.yaml", tmp_path / "serve_config.yaml"
    listed = voxray("models", "list")
    assert listed.returncode == 0 and f"configuration: {DEFAULT.resolve()}" in listed.stderr
    for file in (here, given):
        file.write_text(f"applications: [{{args: {{{file.stem}: 1}}}}]")
    assert "serve_config: unknown key" in voxray("models", "list").stderr
    assert "given: unknown key" in voxray("models", "list", "--config", str(given)).stderr


@pytest.mark.parametrize(
    ("option", "begins"), [("--srt", "1\n00:"), ("--vtt", "WEBVTT"), ("--json", "{"), ("--txt", "")]
)
def test_a_recording_in_every_form(tmp_path: Path, talk: bytes, option: str, begins: str) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(wav(talk))
    with served() as address:
        result = voxray("transcribe", str(file), option, "--server", f"http://{address}")
    assert result.returncode == 0 and result.stdout.startswith(begins) and result.stdout.strip()


@pytest.mark.parametrize(
    ("name", "begins"), [("a.srt", "1\n00:"), ("a.VTT", "WEBVTT"), ("a.json", "{"), ("a", "")]
)
def test_the_form_is_that_of_the_files_name(
    tmp_path: Path, talk: bytes, name: str, begins: str
) -> None:
    file, out = tmp_path / "talk.wav", tmp_path / name
    file.write_bytes(wav(talk))
    with served() as address:
        server = ("--server", f"http://{address}")
        result = voxray("transcribe", str(file), "-o", str(out), *server)
        assert result.returncode == 0 and result.stderr == f"wrote {out}\n"
        assert out.read_text().startswith(begins) and out.read_text().strip()
        assert voxray("transcribe", str(file), "--vtt", "-o", str(out), *server).returncode == 0
    assert out.read_text().startswith("WEBVTT")  # an option goes before the name


def test_a_file_that_is_not_audio_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a sound")
    began = time.monotonic()
    with served() as address:
        result = voxray("transcribe", str(file), "--server", f"http://{address}")
    assert result.returncode == FAILED and "not audio" in result.stderr
    assert "idle_timeout" not in result.stderr and time.monotonic() - began < 30


def test_a_long_recording_is_sent_no_faster_than_it_is_processed(
    tmp_path: Path, talk: bytes
) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(wav(talk * 12))
    with served() as address:
        result = voxray("transcribe", str(file), "--txt", "--server", f"http://{address}")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 48


def test_jobs_from_a_folder_to_a_folder(tmp_path: Path, talk: bytes) -> None:
    recordings, out = tmp_path / "in", tmp_path / "out"
    (recordings / "deeper").mkdir(parents=True)
    (recordings / "one.wav").write_bytes(wav(talk))
    (recordings / "deeper" / "two.wav").write_bytes(wav(talk * 2))
    (recordings / "notes.txt").write_text("not a recording")
    with running(config(tmp_path / "data")) as client:
        server = ("--server", client.url)
        sent = voxray(
            "jobs",
            "submit",
            str(recordings),
            "--speakers",
            "2",
            "--format",
            "srt",
            "-o",
            str(out),
            *server,
        )
        assert sent.returncode == 0, sent.stderr
        ids = sent.stdout.split()
        assert len(ids) == 2 and (out / "one.srt").exists()
        assert (out / "deeper" / "two.srt").read_text().startswith("1\n00:00:0")
        assert ids[0] in voxray("jobs", "list", *server).stdout
        listed = json.loads(
            voxray("jobs", "list", "--json", "--state", "completed", *server).stdout
        )
        assert {job["id"] for job in listed["data"]} == set(ids)
        assert json.loads(voxray("jobs", "get", ids[0], *server).stdout)["full_text"]
        exported = voxray("jobs", "export", ids[0], "--format", "vtt", *server)
        assert exported.stdout.startswith("WEBVTT")
        assert voxray("jobs", "watch", *ids, *server).returncode == 0
        assert "deleted" in voxray("jobs", "cancel", ids[0], *server).stderr
        gone = voxray("jobs", "get", ids[0], *server)
        assert gone.returncode == FAILED and "no job" in gone.stderr


def test_jobs_that_are_refused_or_fail_are_reported(tmp_path: Path, speech: bytes) -> None:
    text, broken = tmp_path / "text.wav", tmp_path / "broken.wav"
    text.write_text("only some words")
    broken.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt garbage garbage garbage")
    with running(config(tmp_path / "data")) as client:
        server = ("--server", client.url)
        refused = voxray("jobs", "submit", str(text), *server)
        assert refused.returncode == FAILED and "not a recording" in refused.stderr
        failed = voxray("jobs", "submit", str(broken), "--watch", *server)
        assert failed.returncode == FAILED and "unreadable_audio" in failed.stderr
        empty = tmp_path / "empty"
        empty.mkdir()
        assert voxray("jobs", "submit", str(empty), *server).returncode == FAILED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_port_is_free_or_it_says_who_has_it(host: str) -> None:
    if ":" in host:
        needs_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        address = ListenAddress(host, other.getsockname()[1])
        assert f"port {address.port} on {host} is in use by " in str(address.obstacle())
        assert f"(pid {os.getpid()}: " in str(address.obstacle())
    assert address.obstacle() is None


def test_every_address_is_in_use_if_one_is() -> None:
    """Also of IPv6, if only IPv4 is in use: HAProxy has one socket for both."""
    needs_ipv6()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host in ("0.0.0.0", "::"):
            assert f"(pid {os.getpid()}: " in str(ListenAddress(host, port).obstacle())
        assert ListenAddress("::1", port).obstacle() is None


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refused)
    assert ListenAddress("::", 8000).obstacle() == (
        "port 8000 on :: cannot be used: Address family not supported by protocol"
    )


def test_an_address_of_another_machine_is_not_called_in_use() -> None:
    assert ListenAddress("192.0.2.77", 8000).obstacle() == (
        "port 8000 on 192.0.2.77 cannot be used: Cannot assign requested address"
    )
