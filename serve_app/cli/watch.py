"""`voxray jobs watch`: a bar for each job until it ends."""

import time
from collections.abc import Sequence
from typing import Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serve_app.backoff import backoff_s
from serve_app.cli import FAILED, NoServer, complain, console
from serve_app.cli.rest import Refused, Rest

ENDED = ("completed", "failed", "cancelled")
POLL_S = 0.3
RETRY_S, SLOWEST_RETRY_S = 0.5, 5.0
AWAY_S = 60.0
"""How long a server may be unreachable while its jobs are watched."""

COLUMNS = (
    TextColumn("{task.fields[name]}", markup=False),
    BarColumn(),
    TaskProgressColumn(),
    TextColumn("{task.description}"),
    TimeElapsedColumn(),
)

Job = dict[str, Any]


def watch_jobs(server: str, ids: Sequence[str]) -> None:
    rest = Rest(server)
    if not all_completed(until_ended(rest, ids or [job["id"] for job in _unfinished(rest)])):
        raise typer.Exit(FAILED)


def all_completed(jobs: Sequence[Job]) -> bool:
    """Whether they are; those that are not are reported."""
    for job in jobs:
        if job["state"] != "completed":
            reason = f": {job['error']['code']}: {job['error']['message']}" if job["error"] else ""
            complain(f"{job['file']['name']}: {job['state']}{reason}")
    return all(job["state"] == "completed" for job in jobs)


def until_ended(rest: Rest, ids: Sequence[str]) -> list[Job]:
    """The jobs as they ended. An unknown id raises `Refused` at once; a server that restarts is
    waited for."""
    jobs = {id_: _job(rest, id_) for id_ in ids}
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
        bars = {id_: progress.add_task("", total=100, name="") for id_ in jobs}
        while True:
            for id_, job in jobs.items():
                step = (job["state"] == "running" and job["step"]) or job["state"]
                progress.update(
                    bars[id_],
                    completed=job["progress"],
                    description=step,
                    name=job["file"]["name"],
                )
                if job["state"] in ENDED:
                    progress.stop_task(bars[id_])
            unfinished = [id_ for id_, job in jobs.items() if job["state"] not in ENDED]
            if not unfinished:
                return list(jobs.values())
            time.sleep(POLL_S)
            jobs |= {id_: _patiently(rest, id_) for id_ in unfinished}


def _job(rest: Rest, id_: str) -> Job:
    job: Job = rest.ask("GET", f"/v1/jobs/{id_}").json()
    return job


def _patiently(rest: Rest, id_: str) -> Job:
    deadline = time.monotonic() + AWAY_S
    attempt = 0
    while True:
        try:
            return _job(rest, id_)
        except (NoServer, Refused) as error:
            final = isinstance(error, Refused) and error.status < 500 and error.status != 429
            if final or time.monotonic() > deadline:
                raise
            attempt += 1
            time.sleep(backoff_s(RETRY_S, attempt, SLOWEST_RETRY_S))


def _unfinished(rest: Rest) -> list[Job]:
    params = {"state": ["queued", "running", "cancelling"], "limit": 100}
    found: list[Job] = rest.ask("GET", "/v1/jobs", params=params).json()["data"]
    return found
