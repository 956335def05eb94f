"""Stock clients with nothing changed but their base URL, in an environment of their own.

`make test` installs them into .venv/clients where they install; elsewhere these tests are skipped.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from loadtest.speech import wav
from tests.fakes import served

HERE = Path(__file__).parent.parent / "clients"
PYTHON = Path(sys.executable).parent.parent / "clients/bin/python"

NODE = shutil.which("node")

in_python = pytest.mark.skipif(not PYTHON.exists(), reason="the clients are not installed")
in_node = pytest.mark.skipif(
    not NODE or not (HERE / "node_modules").exists(), reason="the clients are not installed"
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


def run(
    program: str | Path, script: str, address: str, speech: bytes, folder: Path
) -> dict[str, Any]:
    file = folder / "speech.wav"
    silence = np.zeros(16_000, np.int16)
    samples = np.concatenate([np.frombuffer(speech, "<i2"), silence])
    file.write_bytes(wav(soxr.resample(samples, 16_000, 24_000).astype("<i2").tobytes(), 24_000))
    done = subprocess.run(
        [program, HERE / script, address, file], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


REPLY = "The sim answers, and this is all it "


@in_python
def test_livekit_transcribes_speaks_chats_and_converses(
    address: str, speech: bytes, tmp_path: Path
) -> None:
    got = run(PYTHON, "livekit_client.py", address, speech, tmp_path)
    assert len(got["stt"]["text"].split()) > 3
    assert len(got["stt_realtime"]["text"].split()) > 3
    assert got["stt_realtime"]["kinds"] == [
        "end_of_speech",
        "final_transcript",
        "interim_transcript",
        "start_of_speech",
    ]
    assert got["tts"]["seconds"] == pytest.approx(0.5, abs=0.1)
    assert got["chat"]["text"] == REPLY
    realtime = got["realtime"]
    assert realtime["errors"] == [] and len(realtime["heard"].split()) > 3
    assert realtime["generations"] == 2 and realtime["text"] == REPLY * 2
    assert realtime["audio_s"] == pytest.approx(1.6, abs=0.1)


@in_python
def test_pipecat_transcribes_and_converses(address: str, speech: bytes, tmp_path: Path) -> None:
    got = run(PYTHON, "pipecat_client.py", address, speech, tmp_path)
    assert got["stt"]["errors"] == [] and len(got["stt"]["heard"].split()) > 3
    assert got["realtime"]["errors"] == []
    assert REPLY in got["realtime"]["text"] and got["realtime"]["audio_s"] >= 0.8


@in_node
def test_openai_node_and_the_agents_sdk_work(address: str, speech: bytes, tmp_path: Path) -> None:
    """openai-node, and @openai/agents with a client secret as a browser offers it."""
    got = run(str(NODE), "node_client.mjs", address, speech, tmp_path)
    rest, agent = got["rest"], got["agent"]
    assert len(rest["text"].split()) > 3 and rest["chat"] == REPLY and rest["speech"] > 500
    assert rest["events"] == ["transcript.text.delta", "transcript.text.done"]
    assert agent["errors"] == [] and agent["audio"] > 70_000
    assert [said for who, said in agent["history"] if who == "assistant"] == [REPLY, REPLY]
    assert agent["history"][2] == ["user", "and hello in writing"]
