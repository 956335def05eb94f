"""`voxray status`: versions, engines, deployments, machines, jobs and sessions of the server."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from serve_app.cli.rest import Rest

GIB = 1 << 30

Status = dict[str, Any]


def show_status(server: str, as_json: bool) -> None:
    status = Rest(server).ask("GET", "/v1/status").json()
    if as_json:
        print(json.dumps(status))
        return
    console = Console(highlight=False)
    for part in _report(server, status):
        console.print(part, soft_wrap=isinstance(part, Text))


def _report(server: str, status: Status) -> Iterable[RenderableType]:
    """What is printed, from top to bottom."""
    versions = ", ".join(f"{name} {number}" for name, number in status["versions"].items())
    yield Text(f"{server}: {status['status']}, up {status['uptime_s']:.0f} s ({versions})")
    yield Text(
        f"{status['active_sessions']} sessions, {status['active_conversations']} conversations, "
        f"{status['active_connections']} connections; {_jobs(status['jobs'])}"
    )
    if level := status.get("quality_level"):
        yield Text(f"too much to do: quality level {level} of 5, some partials may be left out")
    yield _table(("engine", "name", "model", "state"), map(_engine, status["engines"]))
    if deployments := status["deployments"]:
        yield _table(("deployment", "status", "replicas"), map(_deployment, deployments.items()))
    yield _table(("node", "CPU", "memory", "GPU"), map(_node, status["nodes"]))


def _jobs(jobs: dict[str, int | None]) -> str:
    """The counts are None if the server's database does not answer."""
    if None in jobs.values():
        return "jobs: the database does not answer"
    return f"jobs: {jobs['waiting']} waiting, {jobs['running']} running"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*names)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _engine(engine: Status) -> Sequence[str]:
    loaded = "" if engine["percent"] == 100 else f" {engine['percent']:.0f} %"
    return engine["kind"], engine["engine"], engine["model"] or "", engine["state"] + loaded


def _deployment(named: tuple[str, Status]) -> Sequence[str]:
    name, deployment = named
    replicas = ", ".join(f"{count} {state}" for state, count in deployment["replicas"].items())
    return name, deployment["status"], replicas


def _node(node: Status) -> Sequence[str]:
    cpu, memory = node["cpu"], node["memory"]
    gpus = (
        f"{gpu['name']}: {gpu['percent']} %, "
        + _gib(gpu["memory_used_bytes"], gpu["memory_total_bytes"])
        for gpu in node["gpus"]
    )
    return (
        node["node"],
        f"{cpu['percent']:.0f} % of {cpu['count']}",
        _gib(memory["used_bytes"], memory["total_bytes"]),
        "\n".join(gpus) or "none",
    )


def _gib(used: int, total: int) -> str:
    return f"{used / GIB:.1f} of {total / GIB:.1f} GiB"
