"""`voxray models`: lists, downloads and checks weights."""

import os
from pathlib import Path

import typer
from rich.table import Table

from serve_app.cli import FAILED, Failure, complain, console
from serve_app.cli.config_file import config_file, settings, validated
from serve_app.config import Config
from serve_app.config.weighted import HasWeights
from serve_app.models import weights
from serve_app.models.gpu_plan import GIB, DoesNotFit


def configured(path: Path | None, profile: str | None) -> Config:
    """The configuration of `path` or of the default file. Raises `Failure`."""
    file = config_file(path)
    return validated(file, settings(file, None, None, profile)[0])


def list_weights(config: Config) -> None:
    table = Table(
        "engine", "model", "on disk", "GPU memory", "where", box=None, padding=(0, 2, 0, 0)
    )
    for kind, leaf in config.with_weights.items():
        name = f"{kind} {config.engines[kind][0]}"
        folder = weights.folder_of(config.models, leaf.model)
        here = weights.is_here(folder, leaf.files)
        size = f"{weights.size(folder, leaf.files) / GIB:.2f} GiB" if here else "absent"
        memory = weights.needed(config.models, leaf, name)
        needs = f"{memory.total / GIB:.1f} GiB" if memory else "unknown"
        table.add_row(name, leaf.model, size, needs, str(folder))
    if table.row_count:
        console.print(table)
    else:
        console.print("the configured engines need no weights: they come with their packages")


def download_weights(config: Config) -> None:
    if not console.is_terminal:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for leaf in config.with_weights.values():
        try:
            folder = weights.fetch(config.models, leaf)  # huggingface_hub shows a bar per file
        except weights.Absent as absent:
            raise Failure(str(absent)) from absent
        console.print(f"{leaf.model} is in {folder}")


def check_weights(config: Config) -> None:
    wrong = [
        problem for leaf in config.with_weights.values() for problem in _problems(config, leaf)
    ]
    try:
        weights.check_plan(config)
    except DoesNotFit as reason:
        wrong.append(str(reason))
    for problem in wrong:
        complain(problem)
    if wrong:
        raise typer.Exit(FAILED)


def _problems(config: Config, leaf: HasWeights) -> list[str]:
    folder = weights.folder_of(config.models, leaf.model)
    with console.status(f"reading {folder} …"):
        found = list(weights.problems(folder, leaf.files))
    if not found:
        console.print(f"{leaf.model}: intact")
    return [f"{leaf.model} in {folder}: {problem}" for problem in found]
