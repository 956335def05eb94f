"""`voxray usage`: what tenants and their keys have used."""

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from serve_app.cli import console
from serve_app.cli.rest import Rest

Form = Literal["table", "csv", "json"]
MIB = 1 << 20


def show_usage(server: str, asked: dict[str, Any], form: Form) -> None:
    params = {name: value for name, value in asked.items() if value is not None}
    sent = "csv" if form == "csv" else "json"
    answer = Rest(server).ask("GET", "/v1/usage", params=params | {"format": sent})
    if form == "table":
        found = answer.json()
        Console(highlight=False).print(_table(found["group_by"], found["data"]))
        if found["has_more"]:
            console.print("there are more rows: raise --limit, or ask for fewer days")
    else:
        print(answer.text.rstrip())


def _table(by: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for name in by:
        table.add_column(name, no_wrap=True)
    for name in ("audio", "characters", "tokens", "jobs", "requests", "stored"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*(row[name] for name in by), *_cells(row))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[name]:,}" for name in ("characters", "tokens", "jobs", "requests")]
    return [f"{row['audio_seconds']:,.1f} s", *counts, f"{row['stored_bytes'] / MIB:,.1f} MiB"]
