"""`make test`: the tests without Ray on all cores, then those with Ray alone, then those with
several machines alone, and one summary.

Tests with Ray start clusters and watch the clock, so nothing runs beside them. What fails gets one
more try with nothing beside it, because a machine that others share may stand still for a while; the
summary says how many needed it. The exit code is 1 when any test failed twice; the last line has
pytest's own form.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
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
FEW = 10
"""More failures are no accident, and get no second try."""


def main(folder: Path) -> int:
    counts: Counter[str] = Counter()
    codes = []
    for name, options in PARTS.items():
        code, counted = tried(folder / name, options)
        if code not in (PASSED, FAILED):  # interrupted, or killed by a signal
            return abs(code)
        codes.append(code)
        counts += counted
    if counts["again"]:
        print(f"{counts['again']} failed first and passed alone: see above")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return max(codes)


def tried(folder: Path, options: Sequence[str]) -> tuple[int, Counter[str]]:
    """pytest's exit code, and how many passed, failed, were skipped, and passed the second time."""
    code, counts = run(folder, options)
    if code != FAILED or counts["failed"] > FEW:
        return code, counts
    alone = [options[options.index("-m")], options[options.index("-m") + 1], "--last-failed", "-v"]
    code, again = run(folder, alone)
    counts += Counter(passed=again["passed"], again=again["passed"])
    return code, counts - Counter(failed=again["passed"])


def run(folder: Path, options: Sequence[str]) -> tuple[int, Counter[str]]:
    """`folder` keeps the report, and which tests failed."""
    as_root = root() if "cluster" in options else []
    report = folder / "report.xml"
    own = ["-o", f"cache_dir={folder / 'cache'}", f"--junit-xml={report}"]
    code = subprocess.run([*as_root, sys.executable, "-m", "pytest", *own, *options]).returncode
    return code, counted(report) if code in (PASSED, FAILED) else Counter()


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
