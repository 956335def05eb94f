"""The options of `voxray jobs`."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from serve_app.cli.options import (
    DEFAULT_SERVER,
    AsJson,
    FormatName,
    Hotwords,
    Language,
    Out,
    Server,
)

jobs_app = typer.Typer(no_args_is_help=True, help="Transcribe recordings in the background.")

StateName = Literal["queued", "running", "completed", "failed", "cancelling", "cancelled"]


def _choices(names: Any) -> str:
    return ", ".join(get_args(names))


FORMATS = f"{_choices(FormatName)}."
Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Job ids.")]
Speakers = Annotated[int | None, typer.Option(metavar="N", min=1, max=20, help="How many speak.")]


@jobs_app.command()
def submit(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Recordings or folders.", exists=True)
    ],
    server: Server = DEFAULT_SERVER,
    language: Language = None,
    speakers: Speakers = None,
    min_speakers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=20, help="At least this many.")
    ] = None,
    max_speakers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=20, help="At most this many.")
    ] = None,
    diarize: Annotated[bool, typer.Option(help="Tell speakers apart.")] = True,
    channels: Annotated[
        Literal["mix", "speakers"], typer.Option(help="`speakers`: one per channel.")
    ] = "mix",
    denoise: Annotated[bool, typer.Option("--denoise", help="Reduce steady noise.")] = False,
    hotwords: Hotwords = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Called when a job has ended.")
    ] = None,
    priority: Annotated[
        int, typer.Option(metavar="N", min=-10, max=10, help="Higher goes first.")
    ] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the results.")] = False,
    form: Annotated[FormatName, typer.Option("--format", metavar="FORMAT", help=FORMATS)] = "txt",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Wait, and write results into this folder."
        ),
    ] = None,
) -> None:
    """Submit recordings and print the jobs' ids.

    Folders are searched for recordings; other files are skipped and named.

    Exit code 1: a recording was refused, or a watched job did not complete.
    """
    from serve_app.cli.submit import Results, submit_recordings

    options = {
        "language": language,
        "speakers": speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "diarize": str(diarize).lower(),
        "channels": channels,
        "denoise": str(denoise).lower(),
        "hotwords": hotwords,
        "webhook": webhook,
        "priority": str(priority),
    }
    fields = {name: value for name, value in options.items() if value is not None}
    submit_recordings(server, paths, fields, Results(watch, form, out))


@jobs_app.command("list")
def list_jobs(
    server: Server = DEFAULT_SERVER,
    state: Annotated[
        StateName | None,
        typer.Option(metavar="STATE", help=f"{_choices(StateName)}; default: all."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="At most this many.")] = (
        20
    ),
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    from serve_app.cli.jobs import list_jobs as show

    show(server, state, limit, as_json)


@jobs_app.command()
def watch(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Job ids; default: all unfinished jobs."),
    ] = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show the progress of jobs until all have ended. Exit code 1 if one did not complete."""
    from serve_app.cli.watch import watch_jobs

    watch_jobs(server, ids or [])


@jobs_app.command()
def get(id_: Id, server: Server = DEFAULT_SERVER) -> None:
    """Print a job's result as JSON, or the job itself if it has no result."""
    from serve_app.cli.jobs import get as show

    show(server, id_)


@jobs_app.command()
def cancel(ids: Ids, server: Server = DEFAULT_SERVER) -> None:
    """Cancel unfinished jobs; delete finished ones with all their data."""
    from serve_app.cli.jobs import cancel as end

    end(server, ids)


@jobs_app.command()
def export(
    id_: Id,
    server: Server = DEFAULT_SERVER,
    form: Annotated[
        FormatName | None,
        typer.Option("--format", metavar="FORMAT", help=f"{FORMATS} Default: by FILE, else txt."),
    ] = None,
    out: Out = None,
) -> None:
    """Write a job's result as text, subtitles, table or document."""
    from serve_app.cli.jobs import export as write

    write(server, id_, form, out)
