"""The `voxray` command and its options; each command has its own module.

A command imports its module when it runs, so that `voxray --help` is quick.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from serve_app import __version__
from serve_app.cli import Failure, complain
from serve_app.cli.main_jobs import jobs_app
from serve_app.cli.main_keys import keys_app
from serve_app.cli.main_models import models_app
from serve_app.cli.main_storage import storage_app
from serve_app.cli.main_tenants import tenants_app
from serve_app.cli.options import (
    DEFAULT_SERVER,
    AsJson,
    ConfigFile,
    Hotwords,
    Language,
    Out,
    Profile,
    Server,
    Voice,
)


class Commands(TyperGroup):
    """Turns a `Failure` of any command into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            complain(str(failure))
            raise typer.Exit(failure.exit_code) from failure


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Voice AI on your own machines. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
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
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Overrides the configuration.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="Overrides the configuration."),
    ] = None,
    profile: Profile = None,
    log_format: Annotated[
        Literal["json", "text"] | None,
        typer.Option(help="Print the log lines of all replicas on stdout, in this form."),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Start Ray's dashboard, too (300 MB).")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in without a key.")
    ] = False,
    tls: Annotated[
        Literal["self-signed"] | None,
        typer.Option(help="TLS with a certificate of its own, for a first try."),
    ] = None,
) -> None:
    """Start Ray and the server on this machine. Ctrl-C stops both."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.server import run_server

    file = config_file(config)
    own = tls is not None
    raise typer.Exit(run_server(file, host, port, profile, log_format, dashboard, insecure, own))


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", exists=True, dir_okay=False)],
    server: Server = DEFAULT_SERVER,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send at the speed of speech.")] = (
        False
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print finals as JSON lines.")] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Print SubRip subtitles.")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="Print WebVTT subtitles.")] = False,
    txt: Annotated[
        bool,
        typer.Option(
            "--txt",
            help="Print one line per utterance (default, unless FILE ends in another form).",
        ),
    ] = False,
    language: Language = None,
    hotword: Hotwords = None,
    grammar: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Expect only the sentences of this JSGF grammar.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Transcribe recordings live, with partial results on the terminal."""
    form = _one_form({"json": as_json, "srt": srt, "vtt": vtt, "txt": txt}, out)
    from serve_app.cli.transcribe import TranscribeOptions
    from serve_app.cli.transcribe import transcribe as transcribe_files
    from serve_app.client import LiveOptions

    start = LiveOptions(
        language=language,
        hotwords=hotword or (),
        grammar=grammar.read_text() if grammar else None,
    )
    transcribe_files(TranscribeOptions(server, realtime, form, start), files, out)


@app.command()
def mic(
    server: Server = DEFAULT_SERVER,
    language: Language = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="Stop after this time.")
    ] = None,
) -> None:
    """Show live captions of the microphone. Ctrl-C stops."""
    from serve_app.cli.mic import caption_microphone
    from serve_app.client import LiveOptions

    caption_microphone(server, LiveOptions(language=language), seconds)


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="The text to speak.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The audio file; `-` is stdout, to pipe it."
        ),
    ],
    server: Server = DEFAULT_SERVER,
    form: Annotated[
        Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None,
        typer.Option("--format", help="Default: by the file's name; wav on stdout."),
    ] = None,
    voice: Voice = None,
    style: Annotated[
        str | None, typer.Option(metavar="NAME", help="A style configured on the server.")
    ] = None,
    speed: Annotated[float, typer.Option(metavar="X", min=0.25, max=4, help="Pace.")] = 1.0,
) -> None:
    """Speak a text into an audio file."""
    from serve_app.cli.say import say as speak

    speech = {"input": text, "voice": voice, "style": style, "speed": speed}
    speak(server, speech, form, out)


@app.command()
def chat(
    text: Annotated[
        str | None, typer.Argument(help="One message; without it, type as many as you like.")
    ] = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Chat in writing. Ctrl-D ends."""
    from serve_app.cli.chat import converse

    converse(server, text)


@app.command()
def talk(
    server: Server = DEFAULT_SERVER,
    in_: Annotated[
        Path | None,
        typer.Option(
            "--in",
            metavar="FILE",
            help="Speak this recording instead of using the microphone.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write replies to this wav, not the loudspeaker."
        ),
    ] = None,
    voice: Voice = None,
) -> None:
    """Hold a spoken conversation. Speak to interrupt a reply; Ctrl-C ends."""
    from serve_app.cli.talk import talk as converse

    converse(server, in_, out, voice)


@app.command()
def status(
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Show versions, engines, deployments, machines, jobs and sessions of a running server."""
    from serve_app.cli.status import show_status

    show_status(server, as_json)


@app.command()
def usage(
    server: Server = DEFAULT_SERVER,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="As 2026-11-30; default: 30 days ago."),
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Default: today.")] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="NAMES", help="Some of day,tenant,key; empty: one sum.")
    ] = "day,tenant,key",
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Rows at most.")
    ] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what tenants and their keys have used: audio, characters, tokens, jobs, requests."""
    from serve_app.cli.usage import show_usage

    asked = {"from": first, "to": last, "group_by": by, "tenant": tenant, "limit": limit}
    show_usage(server, asked, "csv" if as_csv else "json" if as_json else "table")


app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(keys_app, name="keys")
app.add_typer(storage_app, name="storage")
app.add_typer(tenants_app, name="tenants")


@app.command()
def env(
    config: ConfigFile = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let other machines reach HAProxy's metrics page.")
    ] = False,
) -> None:
    """Print the environment for `ray start` and `serve run`: eval "$(voxray env)"."""
    from serve_app.cli.config_file import config_file
    from serve_app.cli.server import print_environment

    print_environment(config_file(config), public)


def _one_form(flags: dict[str, bool], out: Path | None) -> Any:
    """The chosen form, else that of the file's name, else `txt`."""
    chosen = [form for form, wanted in flags.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"choose one of --{' and --'.join(chosen)}")
    named = out.suffix[1:].lower() if out else ""
    return chosen[0] if chosen else named if named in flags else "txt"
