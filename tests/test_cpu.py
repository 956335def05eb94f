"""The embedded recogniser behind the whole application, and the docs run as they stand."""

import json
from pathlib import Path

import pytest

from loadtest.speech import wav
from serve_app.cli import NO_SERVER
from tests.conftest import SAID
from tests.readme import commands, run_javascript, run_python, run_shell
from tests.server import running, voxray

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
        assert {"the", "weather", "warm", "tomorrow"} & set(final["text"].split())
        srt = voxray("transcribe", str(file), "--server", server.url, "--srt")
        assert srt.stdout.startswith("1\n00:00:00,")
        for command in commands("README.md") + commands("docs/deployment.md"):
            run_shell(command, server, tmp_path)
        assert (tmp_path / "speech.srt").read_text().startswith("1\n00:00:00,")
        assert "final " in run_python(server, tmp_path)
        assert run_javascript(server) in (0, None)
        bad = voxray("transcribe", str(tmp_path / "run.log"), "--server", server.url)
        assert bad.returncode == 1 and "not audio" in bad.stderr
    assert voxray("transcribe", str(file), "--server", server.url).returncode == NO_SERVER
