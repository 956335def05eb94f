"""The command without a server, and where there is no microphone."""

import wave
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app.cli import FAILED, NO_SERVER
from tests.fakes import served
from tests.server import voxray

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "command", ["", "run", "transcribe", "mic", "say", "chat", "talk", "status", "env"]
)
def test_every_command_has_help(command: str) -> None:
    shown = voxray(*command.split(), "--help")
    assert shown.returncode == 0 and "Usage" in shown.stdout


def test_a_server_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(bytes(3200)))
    out = str(tmp_path / "out.wav")
    for command in (
        ["transcribe", str(file)],
        ["status"],
        ["say", "hi", "-o", out],
        ["chat", "hi"],
        ["talk", "--in", str(file), "--out", out],
    ):
        said = voxray(*command, "--server", NOBODY)
        assert said.returncode == NO_SERVER
        assert "voxray run" in said.stderr and "Traceback" not in said.stderr


def test_no_microphone_is_said_plainly() -> None:
    said = voxray("mic", "--server", NOBODY)
    assert said.returncode == FAILED and "no microphone" in said.stderr
    said = voxray("talk", "--server", NOBODY)
    assert said.returncode == FAILED and "--in FILE" in said.stderr


def test_a_conversation_from_file_to_file(tmp_path: Path, speech: bytes) -> None:
    question, answer = tmp_path / "question.wav", tmp_path / "answer.wav"
    question.write_bytes(wav(speech))
    with served() as address:
        server = ("--server", f"http://{address}")
        talked = voxray("talk", "--in", str(question), "--out", str(answer), *server)
        assert talked.returncode == 0 and "it:  The twin answers," in talked.stderr
        assert wave.open(str(answer)).getnframes() == pytest.approx(0.8 * 24_000, rel=0.01)
        bad = voxray("talk", "--in", str(question), "--out", str(answer), "--voice", "bob", *server)
        assert bad.returncode == FAILED and "bob" in bad.stderr
        assert voxray("chat", "hello", *server).stdout.startswith("The twin answers,")
        for suffix in ("mp3", "flac"):
            spoken = voxray("say", "Hi there.", "-o", str(tmp_path / f"s.{suffix}"), *server)
            assert spoken.returncode == 0 and (tmp_path / f"s.{suffix}").stat().st_size > 500
        unknown = voxray("say", "Hi.", "-o", str(tmp_path / "s.doc"), *server)
        assert unknown.returncode == FAILED and ".mp3" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [["transcribe"], ["transcribe", "/no/such/file"], ["dance"], ["run", "--port", "x"]],
)
def test_wrong_usage_is_two(arguments: list[str]) -> None:
    assert voxray(*arguments).returncode == 2


def test_a_configuration_that_cannot_be_meant_is_named(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    config.write_text("applications: [{args: {profil: cpu}}]\n")
    said = voxray("run", "--config", str(config))
    assert said.returncode == FAILED and "profil" in said.stderr


def test_the_environment_is_fit_for_eval() -> None:
    said = voxray("env")
    assert "export RAY_SERVE_ENABLE_HA_PROXY=1\n" in said.stdout


@pytest.mark.parametrize(
    ("option", "begins"), [("--srt", "1\n00:"), ("--vtt", "WEBVTT"), ("--json", "{"), ("--txt", "")]
)
def test_a_recording_in_every_form(tmp_path: Path, talk: bytes, option: str, begins: str) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(wav(talk))
    with served() as address:
        said = voxray("transcribe", str(file), option, "--server", f"http://{address}")
    assert said.returncode == 0 and said.stdout.startswith(begins) and said.stdout.strip()


def test_a_long_recording_is_sent_no_faster_than_it_is_heard(tmp_path: Path, talk: bytes) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(wav(talk * 12))
    with served() as address:
        said = voxray("transcribe", str(file), "--txt", "--server", f"http://{address}")
    assert said.returncode == 0 and len(said.stdout.splitlines()) == 48
