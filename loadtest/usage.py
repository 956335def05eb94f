"""CPU and memory of a tree of processes, by name."""

import contextlib
import re
from collections import defaultdict
from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    cpu_s: dict[str, float]
    """Seconds of processor time by process name."""
    pss: int
    """Bytes, shared pages divided among their users."""


def usage(root: int) -> Usage:
    """Of the process `root` and everything below it."""
    cpu: defaultdict[str, float] = defaultdict(float)
    pss = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(root)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                cpu[name(process)] += times.user + times.system
                pss += process.memory_full_info().pss
    return Usage(cpu, pss)


def name(process: psutil.Process) -> str:
    """`ray::ServeReplica:voxray:Vad` is Vad; the rest as the system calls them."""
    title = (process.cmdline() or [process.name()])[0]
    replica = re.match(r"ray::ServeReplica:voxray:(\w+)", title)
    if replica:
        return replica[1]
    return title.split()[0].rsplit("/", 1)[-1] if title.startswith("ray::") else process.name()
