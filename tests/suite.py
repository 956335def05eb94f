"""`make test`: the tests without Ray on all cores, then those with Ray alone, then those with
several machines alone, and one summary.

Tests with Ray start clusters and watch the clock, so nothing runs beside them. The exit code is 1
when any part failed; the last line has pytest's own form.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from subprocess import DEVNULL

PASSED, FAILED = 0, 1
PLAIN = "--tb=native"
"""Python 3.11 sometimes cannot parse sources for a longer traceback: `AST constructor recursion
depth mismatch`, which ends a worker."""
OTHERS = "not ray and not cluster and not container"
PARALLEL = ("-n", "2", "--dist", "loadfile", "-m", OTHERS, PLAIN)
ALONE = ("-m", "ray")
MACHINES = ("-m", "cluster")
PARTS = {"parallel": PARALLEL, "ray": ALONE, "cluster": MACHINES}


def main(folder: Path) -> int:
    counts: Counter[str] = Counter()
    codes = []
    for name, options in PARTS.items():
        report = folder / f"{name}.xml"
        codes.append(run(*options, f"--junit-xml={report}"))
        if codes[-1] not in (PASSED, FAILED):  # interrupted, or killed by a signal
            return abs(codes[-1])
        counts += counted(report)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return max(codes)


def run(*options: str) -> int:
    as_root = root() if options[:2] == MACHINES else []
    return subprocess.run([*as_root, sys.executable, "-m", "pytest", *options]).returncode


def root() -> list[str]:
    """How to become root, which several machines on one need; [] where that is not possible."""
    may = os.getuid() and not subprocess.run(["sudo", "-n", "true"], stderr=DEVNULL).returncode
    return ["sudo", "-n", "-E"] if may else []


def counted(report: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, failed, errors, skipped = (
            int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")
        )
        counts += Counter(
            passed=total - failed - errors - skipped, failed=failed + errors, skipped=skipped
        )
    return counts


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as reports:
        sys.exit(main(Path(reports)))
