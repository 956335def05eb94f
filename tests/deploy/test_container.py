"""The image is built, runs, transcribes and stops: deploy/containers/prove.sh, minutes long."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEEDED = ("buildah", "mmdebstrap", "nsenter")
MISSING = [tool for tool in NEEDED if not shutil.which(tool)]


@pytest.mark.container
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.getuid() != 0 or bool(MISSING), reason=f"needs root and {NEEDED}")
def test_the_image_builds_runs_transcribes_and_stops() -> None:
    proof = subprocess.run(
        ["deploy/containers/prove.sh"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = proof.stdout.decode()
    print(said)
    assert said.splitlines()[-1] == "proved" and proof.returncode == 0
