"""What `voxray run` does with signals, with something other than Ray in the child process."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from serve_app.cli import DONE, FAILED

SERVES = """
import os, subprocess, sys
from serve_app.cli.supervisor import supervise

def serve(stop):
    orphan = "import os, time; pid = os.fork(); pid and (print(pid, flush=True), os._exit(0)); os.setsid(); time.sleep(99)"
    subprocess.run([sys.executable, "-c", orphan])
    {then}

sys.exit(supervise(serve))
"""

WAITS = "os.read(stop, 1); return 0"
DRAINS = "os.read(stop, 1); print('draining', flush=True); os.read(stop, 1); return 1"


@contextmanager
def supervised(then: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and the pid of an orphan of its child."""
    code = SERVES.format(then=then)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True) as one:
        assert one.stdout
        orphan = int(one.stdout.readline())
        try:
            yield one, orphan
        finally:
            one.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(number: signal.Signals) -> None:
    with supervised(WAITS) as (process, orphan):
        process.send_signal(number)
        _, result = process.communicate(timeout=20)
        assert process.returncode == DONE
        assert result == "stopping: waiting for what is open; Ctrl-C again stops at once\n"
        assert not psutil.pid_exists(orphan)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_drain_at_once(number: signal.Signals) -> None:
    with supervised(DRAINS) as (process, orphan):
        process.send_signal(number)
        assert process.stdout and process.stdout.readline() == "draining\n"
        assert process.poll() is None
        process.send_signal(number)
        _, result = process.communicate(timeout=20)
        assert process.returncode == DONE and result.endswith("stopping at once\n")
        assert not psutil.pid_exists(orphan)


def test_a_drain_that_fails_says_so() -> None:
    with supervised("os.read(stop, 1); return 1") as (process, orphan):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == FAILED and not psutil.pid_exists(orphan)


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("return 1", ""),
        ("raise ValueError('no port')", "could not start: no port"),
        ("os.abort()", "ended unexpectedly (exit code -6)"),
    ],
)
def test_a_child_that_fails_leaves_nothing(then: str, says: str) -> None:
    with supervised(then) as (process, orphan):
        _, result = process.communicate(timeout=20)
        assert process.returncode == FAILED and says in result and "Traceback" not in result
        assert not psutil.pid_exists(orphan)


def test_the_child_ends_with_its_parent() -> None:
    with supervised(WAITS) as (process, orphan):
        (child,) = process_children(process)
        process.kill()
        psutil.wait_procs([child], timeout=20)
        assert not child.is_running() and not psutil.pid_exists(orphan)


def process_children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children()
        if "supervise" in " ".join(child.cmdline())
    ]
