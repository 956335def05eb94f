"""Runs a function in a child process, and ends it and all that it started when a signal comes.

Ray replaces the signal handlers of the process that it starts in, Python's and the system's, and a
signal in the midst of that is a stack dump. So this process never loads Ray: it blocks the signals,
waits for them, and tells the child by a pipe, whose end the child sees also when this process dies.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import psutil

from serve_app.cli import DONE, FAILED, complain, console

STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
WATCHED = STOPS | {signal.SIGCHLD}
STOP_PATIENCE_S = 10.0
SWEEP_S = 0.02
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>

Serve = Callable[[int], int]
"""Works until the file descriptor that it gets is at its end; then returns the exit code."""


def hold_signals() -> None:
    """From now on SIGINT and SIGTERM wait for `supervise`; call it while there is one thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)


def supervise(serve: Serve) -> int:
    """The exit code of `serve`, run in a child; 0 when SIGINT or SIGTERM ended it.

    Nothing that it started is left when this returns.
    """
    hold_signals()
    _adopt_orphans()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        _run(serve, told)
    os.close(told)
    code = _await_end(child)
    if code is None:
        console.print("stopping …")
    os.close(tell)
    _sweep(child)
    console.show_cursor()  # a spinner may have hidden it
    return DONE if code is None else code


def _adopt_orphans() -> None:
    """What loses its parent becomes our child, so that the sweep finds it. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)


def _run(serve: Serve, told: int) -> NoReturn:
    """The child's life. Its group is its own: a terminal's Ctrl-C reaches the parent only."""
    code = FAILED
    _adopt_orphans()
    try:
        os.setpgid(0, 0)
        ignore_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        code = serve(told)
    except Exception as error:  # the outermost edge: say it plainly
        complain(f"could not start: {error}")
    finally:
        _sweep()  # the parent does it, too, unless it was killed
        sys.stderr.flush()
        os._exit(code)


def ignore_signals() -> None:
    """The parent tells the child when to stop. Not SIG_IGN: programs it starts would inherit it."""
    for number in STOPS:
        signal.signal(number, lambda *_: None)


def _await_end(child: int) -> int | None:
    """The child's exit code, or None when a signal came first."""
    while signal.sigwait(WATCHED) == signal.SIGCHLD:
        for pid, status in _reaped():
            if pid == child:
                return _code(os.waitstatus_to_exitcode(status))
    return None


def _code(code: int) -> int:
    if code not in (DONE, FAILED):
        complain(f"the server ended unexpectedly (exit code {code}); Ray's logs may say why")
    return DONE if code == DONE else FAILED


def _reaped() -> list[tuple[int, int]]:
    """The children that have ended since the last call, orphans that we adopted among them."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended.append(one)
    return ended


def _sweep(child: int | None = None) -> None:
    """Once the child has ended, or taken too long, all processes below this one are killed."""
    began = time.monotonic()
    known = _descendants()
    while known := {process for process in known | _descendants() if process.is_running()}:
        waited_s = time.monotonic() - began
        if waited_s > STOP_PATIENCE_S or all(process.pid != child for process in known):
            _kill(known)
        if waited_s > 2 * STOP_PATIENCE_S:
            return complain(f"these cannot be killed: {[process.pid for process in known]}")
        time.sleep(SWEEP_S)
        _reaped()


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
