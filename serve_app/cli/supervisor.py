"""Runs a function in a child process, and ends it and its descendants on a signal.

Ray replaces the signal handlers of the process that it starts in, Python's and the system's, and a
signal during that causes a stack dump. So this process never loads Ray: it blocks the signals,
waits for them, and tells the child over a pipe: the first signal writes `DRAIN`, the second closes
the pipe, which means stop at once. The pipe also closes when this process dies.
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

DRAIN = b"d"
STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
WATCHED = STOPS | {signal.SIGCHLD}
STOP_TIMEOUT_S = 10.0
SWEEP_S = 0.02
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>

Serve = Callable[[int], int]
"""Runs until the pipe, whose file descriptor it gets, is closed, or has `DRAIN` and it has drained;
returns the exit code."""


def hold_signals() -> None:
    """Keep SIGINT and SIGTERM pending until `supervise`; call it while there is only one thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)


def supervise(serve: Serve) -> int:
    """The exit code of `serve`, run in a child; 0 when SIGINT or SIGTERM ended it.

    No process that it started is left when this returns.
    """
    hold_signals()
    _adopt_orphans()
    stop, keep_open = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(keep_open)
        _run(serve, stop)
    os.close(stop)
    code = _await_end(child)
    if code is None:
        code = _drained(child, keep_open)
    os.close(keep_open)
    _sweep(child)
    console.show_cursor()  # a spinner may have hidden it
    return DONE if code is None else code


def _drained(child: int, orders: int) -> int | None:
    """The exit code of the child once it has drained, or None when another signal came first."""
    console.print("stopping: waiting for what is open; Ctrl-C again stops at once")
    with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile
        os.write(orders, DRAIN)
    code = _await_end(child)
    if code is None:
        console.print("stopping at once")
    return code


def _adopt_orphans() -> None:
    """Orphans become children of this process, so that the sweep finds them. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)


def _run(serve: Serve, stop: int) -> NoReturn:
    """The child. It has its own process group, so that Ctrl-C reaches only the parent."""
    code = FAILED
    _adopt_orphans()
    try:
        os.setpgid(0, 0)
        ignore_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        code = serve(stop)
    except Exception as error:  # the last handler: no traceback for the user
        complain(f"could not start: {error}")
    finally:
        _sweep()  # the parent does the same, unless it was killed
        sys.stderr.flush()
        os._exit(code)


def ignore_signals() -> None:
    """The parent stops the child. Not SIG_IGN, because programs it starts would inherit that."""
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
    """The children that have ended since the last call, including adopted orphans."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended.append(one)
    return ended


def _sweep(child: int | None = None) -> None:
    """Kill all descendants once the child has ended or takes too long."""
    began = time.monotonic()
    known = _descendants()
    while known := {process for process in known | _descendants() if process.is_running()}:
        waited_s = time.monotonic() - began
        if waited_s > STOP_TIMEOUT_S or all(process.pid != child for process in known):
            _kill(known)
        if waited_s > 2 * STOP_TIMEOUT_S:
            return complain(f"these cannot be killed: {[process.pid for process in known]}")
        time.sleep(SWEEP_S)
        _reaped()


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
