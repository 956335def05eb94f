"""The live programs of docs/clients.md, run as they stand there."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.speech import wav
from tests.client.drivers import node
from tests.fakes import served
from tests.readme import ROOT, blocks

PAGE = "docs/clients.md"


def run(command: list[str], program: Path, code: str, address: str) -> str:
    program.write_text(code.replace("127.0.0.1:8000", address))
    done = subprocess.run(
        [*command, str(program)], cwd=program.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_programs(tmp_path: Path, speech: bytes) -> None:
    (tmp_path / "speech.wav").write_bytes(wav(speech))
    programs = [it for it in blocks(PAGE, "python") if "wave" in it]
    assert len(programs) == 2
    with served() as address:
        said = [run([sys.executable], tmp_path / "a.py", code, address) for code in programs]
    finals = [[line for line in it.splitlines() if line.startswith("final ")] for it in said]
    assert len(finals[0]) == 1 and finals[0] == finals[1]


@pytest.mark.skipif(not node(), reason="there is no Node")
def test_the_javascript_program(tmp_path: Path, speech: bytes) -> None:
    (tmp_path / "speech.wav").write_bytes(wav(speech))
    (tmp_path / "voxray.mjs").write_text((ROOT / "serve_app/web/voxray.js").read_text())
    (code,) = blocks(PAGE, "js")
    with served() as address:
        assert "final " in run(node() or [], tmp_path / "a.mjs", code, address)
