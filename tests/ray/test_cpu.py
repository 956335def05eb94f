"""The embedded recogniser behind the whole application, and the docs run as they stand."""

import json
import re
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app.cli import NO_SERVER
from tests.conftest import SAID
from tests.readme import ROOT, commands, run_javascript, run_python, run_shell
from tests.server import Server, running, voxray
from tests.word_error import word_error_rate

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]


def test_the_cpu_profile_hears_real_words_and_the_docs_do_what_they_say(
    tmp_path: Path, speech: bytes
) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(speech))
    with running(tmp_path, {"profile": "cpu"}) as server:
        exact = voxray("transcribe", str(file), "--server", server.url, "--hotword", SAID[:-1])
        assert exact.returncode == 0 and exact.stdout == SAID[:-1].lower() + "\n"
        heard = voxray("transcribe", str(file), "--server", server.url, "--json", "--realtime")
        final = json.loads(heard.stdout)
        assert final["engine"] == "pocketsphinx"
        assert word_error_rate(SAID[:-1].lower(), final["text"]) < 0.9  # 0.5 to 0.8
        assert "tomorrow" in final["text"].split()
        srt = voxray("transcribe", str(file), "--server", server.url, "--srt")
        assert srt.stdout.startswith("1\n00:00:00,")
        pages = ("README.md", "docs/clients.md", "docs/openai.md", "docs/jobs.md")
        said = {c: run_shell(c, server, tmp_path) for page in pages for c in commands(page)}
        (shown,) = re.findall(r"^    (the weather .*)$", (ROOT / "README.md").read_text(), re.M)
        assert shown + "\n" in said.values()
        assert (tmp_path / "speech.srt").read_text().startswith("1\n00:00:00,")
        assert "final " in run_python("docs/clients.md", server, tmp_path)
        assert (tmp_path / "subtitles" / "speech.srt").read_text().startswith("1\n00:00:0")
        assert "A " in run_python("docs/jobs.md", server, tmp_path)
        assert "it says: " in run_python("docs/realtime.md", server, tmp_path)
        assert (tmp_path / "hello.mp3").stat().st_size > 1000
        run_javascript(server, tmp_path)
        _converse(server, tmp_path)
        bad = voxray("transcribe", str(tmp_path / "run.log"), "--server", server.url)
        assert bad.returncode == 1 and "not audio" in bad.stderr
    assert voxray("transcribe", str(file), "--server", server.url).returncode == NO_SERVER


def _converse(server: Server, folder: Path) -> None:
    """espeak asks, the server answers in audio, and what it answered is heard again."""
    question, answer = folder / "question.wav", folder / "answer.wav"
    asked = voxray("say", "Hello.", "-o", str(question), "--server", server.url)
    assert asked.returncode == 0, asked.stderr
    talked = voxray("talk", "--in", str(question), "--out", str(answer), "--server", server.url)
    assert talked.returncode == 0 and "you: " in talked.stderr, talked.stderr
    (reply,) = [line[3:].strip() for line in talked.stderr.splitlines() if line.startswith("it:")]
    plain = re.sub(r"[^a-z ]", "", reply.lower())
    heard = voxray("transcribe", str(answer), "--server", server.url, "--hotword", plain)
    assert heard.stdout.strip() == plain and plain
    written = voxray("chat", "who are you", "--server", server.url)
    assert written.stdout.startswith("I am ELIZA")
    nobody = voxray("say", "hi", "-o", str(question), "--voice", "nobody", "--server", server.url)
    assert nobody.returncode == 1 and "/v1/audio/voices" in nobody.stderr
