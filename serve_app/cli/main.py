"""The commands and their options; each command's work is a file beside this one."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app import __version__
from serve_app.live.transcript import Form

app = typer.Typer(
    no_args_is_help=True,
    help="Speech on your own machines. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Server = Annotated[
    str, typer.Option("--server", envvar="VOXRAY_SERVER", help="Where the server is.")
]
DEFAULT_SERVER = "http://127.0.0.1:8000"
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The Serve configuration file; else ./serve_config.yaml, else voxray's own.",
        exists=True,
        dir_okay=False,
    ),
]
Profile = Annotated[str | None, typer.Option(help="`cpu`, `gpu` or `sim`; over the file's.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"voxray {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; over the file's.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; over the file's.")] = None,
    profile: Profile = None,
) -> None:
    """Start Ray and the application here; Ctrl-C stops both."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.server import run_server

    raise typer.Exit(run_server(config_file(config), host, port, profile))


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", exists=True, dir_okay=False)],
    server: Server = DEFAULT_SERVER,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Send as fast as it was spoken."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every final as JSON lines.")] = False,
    srt: Annotated[bool, typer.Option("--srt", help="SubRip subtitles.")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="WebVTT subtitles.")] = False,
    txt: Annotated[bool, typer.Option("--txt", help="Plain text, a line an utterance.")] = False,
    language: Annotated[str | None, typer.Option(help="ISO 639-1 code of the speech.")] = None,
    hotword: Annotated[
        list[str] | None, typer.Option(help="A phrase to hear and nothing else; may be repeated.")
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="A JSGF grammar to hear and nothing else.", exists=True)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here, not to stdout.")
    ] = None,
) -> None:
    """Stream recordings to the server and watch partials turn into finals."""
    from serve_app.cli.transcribe import TranscribeRequest, transcribe_files

    form = _one_form({"json": as_json, "srt": srt, "vtt": vtt, "txt": txt})
    start = {
        "language": language,
        "hotwords": hotword or [],
        "grammar": grammar.read_text() if grammar else None,
    }
    raise typer.Exit(transcribe_files(TranscribeRequest(server, realtime, form, start, out), files))


@app.command()
def mic(
    server: Server = DEFAULT_SERVER,
    language: Annotated[str | None, typer.Option(help="ISO 639-1 code of the speech.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
) -> None:
    """Captions of what the microphone hears; Ctrl-C stops."""
    from serve_app.cli.mic import caption_microphone

    raise typer.Exit(caption_microphone(server, {"language": language}, seconds))


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="What to say.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="mp3, opus, aac, flac, wav or pcm.")],
    server: Server = DEFAULT_SERVER,
    voice: Annotated[str | None, typer.Option(help="See GET /v1/audio/voices.")] = None,
    style: Annotated[str | None, typer.Option(help="An emotion that the server has.")] = None,
    speed: Annotated[float, typer.Option(help="1 is the voice's own pace.")] = 1.0,
) -> None:
    """Speak a text into an audio file."""
    from serve_app.cli.say import say_text

    raise typer.Exit(say_text(server, text, out, voice, style, speed))


@app.command()
def chat(
    text: Annotated[str | None, typer.Argument(help="What to say; else what is typed.")] = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Write with the chat engine; Ctrl-D ends."""
    from serve_app.cli.chat import chat as converse

    raise typer.Exit(converse(server, text))


@app.command()
def talk(
    server: Server = DEFAULT_SERVER,
    in_: Annotated[
        Path | None, typer.Option("--in", help="A recording, not the microphone.", exists=True)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the replies here, not to the loudspeaker.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="See GET /v1/audio/voices.")] = None,
) -> None:
    """A spoken conversation; speak while it answers to interrupt it. Ctrl-C ends."""
    from serve_app.cli.talk import talk as converse

    raise typer.Exit(converse(server, in_, out, voice))


@app.command()
def status(
    server: Server = DEFAULT_SERVER,
    dashboard: Annotated[
        str, typer.Option(help="Ray's dashboard, which knows deployments and replicas.")
    ] = "http://127.0.0.1:8265",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Deployments, replicas and sessions of a running server."""
    from serve_app.cli.status import show_status

    raise typer.Exit(show_status(server, dashboard, as_json))


models_app = typer.Typer(no_args_is_help=True, help="Weights of the configured engines.")
app.add_typer(models_app, name="models")


@models_app.command("list")
def list_models(config: ConfigFile = None, profile: Profile = None) -> None:
    """What the configured engines need, what of it is here, and the GPU memory it will take."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.models import list_weights

    raise typer.Exit(list_weights(config_file(config), profile))


@models_app.command()
def download(config: ConfigFile = None, profile: Profile = None) -> None:
    """Fetch the weights that are missing; a broken download goes on where it was."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.models import download_weights

    raise typer.Exit(download_weights(config_file(config), profile))


@models_app.command()
def check(config: ConfigFile = None, profile: Profile = None) -> None:
    """Read all weights: whole, and what the hub said they are; and whether the plan fits."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.models import check_weights

    raise typer.Exit(check_weights(config_file(config), profile))


jobs_app = typer.Typer(no_args_is_help=True, help="Recordings transcribed in the background.")
app.add_typer(jobs_app, name="jobs")
Id = Annotated[str, typer.Argument(help="The job's id.")]
Format = Annotated[str, typer.Option("--format", help="txt, srt, vtt, json, tsv or docx.")]


@jobs_app.command()
def submit(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders.", exists=True)],
    server: Server = DEFAULT_SERVER,
    language: Annotated[str | None, typer.Option(help="ISO 639-1 code of the speech.")] = None,
    speakers: Annotated[int | None, typer.Option(help="How many people speak.")] = None,
    min_speakers: Annotated[int | None, typer.Option(help="At least so many.")] = None,
    max_speakers: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    diarize: Annotated[bool, typer.Option(help="Tell speakers apart.")] = True,
    channels: Annotated[str, typer.Option(help="`mix`, or `speakers`: one each.")] = "mix",
    denoise: Annotated[bool, typer.Option(help="Take steady noise away.")] = False,
    hotwords: Annotated[
        list[str] | None,
        typer.Option("--hotword", help="A phrase to hear and nothing else; may be repeated."),
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="A URL to call at the end.")] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first; -10 to 10.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the results.")] = False,
    form: Format = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Wait, and write results into this folder.")
    ] = None,
) -> None:
    """Hand in recordings, a folder of them at once; prints the jobs' ids."""
    from serve_app.cli.jobs import Wanted
    from serve_app.cli.jobs import submit as hand_in

    asked = {
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
    options = {name: value for name, value in asked.items() if value is not None}
    raise typer.Exit(hand_in(server, paths, Wanted(options, watch, form, out)))


@jobs_app.command("list")
def list_jobs(
    server: Server = DEFAULT_SERVER,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """The newest jobs."""
    from serve_app.cli.jobs import list_jobs as show

    raise typer.Exit(show(server, state, limit, as_json))


@jobs_app.command("watch")
def watch_jobs(
    ids: Annotated[list[str] | None, typer.Argument(help="Jobs; else all that go on.")] = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """A bar for each job, until all have ended."""
    from serve_app.cli.jobs import watch

    raise typer.Exit(watch(server, ids or []))


@jobs_app.command()
def get(id_: Id, server: Server = DEFAULT_SERVER) -> None:
    """A job's result as JSON, or the job while there is none."""
    from serve_app.cli.jobs import get as fetch

    raise typer.Exit(fetch(server, id_))


@jobs_app.command()
def cancel(
    ids: Annotated[list[str], typer.Argument(help="Jobs.")], server: Server = DEFAULT_SERVER
) -> None:
    """End jobs that go on; those that have ended are deleted with all that is kept of them."""
    from serve_app.cli.jobs import cancel as end

    raise typer.Exit(end(server, ids))


@jobs_app.command()
def export(
    id_: Id,
    server: Server = DEFAULT_SERVER,
    form: Format = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here, not to stdout.")
    ] = None,
) -> None:
    """A job's result as text, subtitles, a table or a document."""
    from serve_app.cli.jobs import export as write

    raise typer.Exit(write(server, id_, form, out))


@app.command()
def env(
    config: ConfigFile = None,
    public: Annotated[
        bool, typer.Option(help="HAProxy's metrics page may be reached from other machines.")
    ] = False,
) -> None:
    """Print the environment that `ray start` and `serve run` need: eval "$(voxray env)"."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.server import print_environment

    print_environment(config_file(config), public)


def _one_form(asked: dict[Form, bool]) -> Form | None:
    chosen: list[Form] = [form for form, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"choose one of --{' and --'.join(chosen)}")
    return chosen[0] if chosen else None
