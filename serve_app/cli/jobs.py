"""`voxray jobs list | get | cancel | export`: the server's jobs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from serve_app.cli import Failure, WrongUsage, console
from serve_app.cli.options import FormatName
from serve_app.cli.output import output
from serve_app.cli.rest import Rest


def list_jobs(server: str, state: str | None, limit: int, as_json: bool) -> None:
    params = {"limit": limit, **({"state": state} if state else {})}
    found = Rest(server).ask("GET", "/v1/jobs", params=params).json()
    if as_json:
        print(json.dumps(found))
    else:
        Console(highlight=False).print(_table(found["data"]))


def _table(jobs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    table.add_column("job", no_wrap=True, min_width=36)
    for name in ("state", "done", "audio"):
        table.add_column(name, no_wrap=True)
    table.add_column("file")
    for job in jobs:
        seconds = job["file"]["duration_s"]
        table.add_row(
            job["id"],
            (job["state"] == "running" and job["step"]) or job["state"],
            f"{job['progress']:.0f} %",
            f"{seconds:.0f} s" if seconds is not None else "",
            job["file"]["name"],
        )
    return table


def get(server: str, id_: str) -> None:
    rest = Rest(server)
    shown = rest.ask("GET", f"/v1/jobs/{id_}").json()
    if shown["state"] == "completed":
        shown = rest.ask("GET", f"/v1/jobs/{id_}/results").json()
    else:
        console.print(f"{shown['file']['name']} is {_state(shown)}", markup=False)
    print(json.dumps(shown, indent=2))


def _state(job: dict[str, Any]) -> str:
    error = job["error"]
    return f"{job['state']}: {error['message']}" if error else str(job["state"])


def cancel(server: str, ids: Sequence[str]) -> None:
    rest = Rest(server)
    for id_ in ids:
        answer = rest.ask("DELETE", f"/v1/jobs/{id_}")
        state = "deleted" if answer.status_code == 204 else answer.json()["state"]
        console.print(f"{id_}: {state}")


def export(server: str, id_: str, form: FormatName | None, out: Path | None) -> None:
    chosen = form or _format_of(out)
    with output(out, binary=chosen == "docx") as file:
        answer = Rest(server).ask("GET", f"/v1/jobs/{id_}/export/{chosen}")
        if answer.status_code != 200:
            raise Failure(f"no result yet: the job is {answer.json()['state']}")
        file.write(answer.content)


def _format_of(out: Path | None) -> str:
    suffix = out.suffix[1:].lower() if out else ""
    if suffix and suffix not in get_args(FormatName):
        names = ", ".join(f".{name}" for name in get_args(FormatName))
        raise WrongUsage(f"{out}: use --format, or a name that ends in {names}")
    return suffix or "txt"
