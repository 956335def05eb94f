"""`voxray models`: weights ahead of time."""

from pathlib import Path

from pydantic import ValidationError
from rich.table import Table

from serve_app.cli import DONE, FAILED, complain, console
from serve_app.cli.server import settings
from serve_app.config import Config
from serve_app.models import weights
from serve_app.models.gpu_plan import GIB, DoesNotFit


def list_weights(file: Path, profile: str | None) -> int:
    if (config := _config(file, profile)) is None:
        return FAILED
    table = Table(
        "engine", "model", "on disk", "GPU memory", "where", box=None, padding=(0, 2, 0, 0)
    )
    for kind, leaf in config.with_weights.items():
        name = f"{kind} {config.engines[kind][0]}"
        folder = weights.place(config.models, leaf.model)
        here = weights.is_here(folder, leaf.files)
        size = f"{weights.size(folder, leaf.files) / GIB:.2f} GiB" if here else "absent"
        memory = weights.needed(config.models, leaf, name)
        needs = f"{memory.total / GIB:.1f} GiB" if memory else "unknown"
        table.add_row(name, leaf.model, size, needs, str(folder))
    if table.row_count:
        console.print(table)
    else:
        console.print("no configured engine has weights: its engines come inside pip wheels")
    return DONE


def download_weights(file: Path, profile: str | None) -> int:
    if (config := _config(file, profile)) is None:
        return FAILED
    for leaf in config.with_weights.values():
        try:
            folder = weights.fetch(config.models, leaf)  # huggingface_hub shows a bar a file
        except weights.Absent as absent:
            complain(str(absent))
            return FAILED
        console.print(f"{leaf.model} is in {folder}")
    return DONE


def check_weights(file: Path, profile: str | None) -> int:
    if (config := _config(file, profile)) is None:
        return FAILED
    outcome = DONE
    for leaf in config.with_weights.values():
        folder = weights.place(config.models, leaf.model)
        with console.status(f"reading {folder} …"):
            wrong = list(weights.problems(folder, leaf.files))
        for problem in wrong:
            complain(f"{leaf.model} in {folder}: {problem}")
            outcome = FAILED
        if not wrong:
            console.print(f"{leaf.model}: whole")
    try:
        weights.check_plan(config)
    except DoesNotFit as reason:
        complain(str(reason))
        outcome = FAILED
    return outcome


def _config(file: Path, profile: str | None) -> Config | None:
    try:
        return Config.model_validate(settings(file, None, None, profile)[0])
    except (ValidationError, ValueError) as error:
        complain(f"{file}: {error}")
        return None
