"""CPU and memory of a tree of processes."""

import contextlib
import re
from collections import defaultdict
from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    cpu_s: dict[int, tuple[str, float]]
    """Name and seconds of processor time by process id: names change while a process lives."""
    pss: int
    """Bytes, shared pages divided among their users."""


def usage(root: int) -> Usage:
    """Of the process `root` and everything below it."""
    cpu: dict[int, tuple[str, float]] = {}
    pss = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(root)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                cpu[process.pid] = (name(process), times.user + times.system)
                pss += process.memory_full_info().pss
    return Usage(cpu, pss)


def spent(before: Usage, after: Usage) -> dict[str, float]:
    """Seconds of processor time between the two, by name."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for pid, (name_, total) in after.cpu_s.items():
        seconds[name_] += total - before.cpu_s.get(pid, (name_, 0.0))[1]
    return dict(seconds)


def name(process: psutil.Process) -> str:
    """`ray::ServeReplica:voxray:Vad` is Vad; the rest as the system calls them."""
    title = (process.cmdline() or [process.name()])[0]
    replica = re.match(r"ray::ServeReplica:voxray:(\w+)", title)
    if replica:
        return replica[1]
    return title.split()[0].split(".")[0] if title.startswith("ray::") else process.name()
