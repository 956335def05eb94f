"""Options that several commands share. It imports nothing heavy, because `--help` imports it."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

DEFAULT_SERVER = "http://127.0.0.1:8000"


def _is_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{url!r} is not a URL such as {DEFAULT_SERVER}")
    return url.rstrip("/")


Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="VOXRAY_SERVER", callback=_is_url, metavar="URL", help="The server."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Serve configuration; default: ./serve_config.yaml, else the packaged one.",
        exists=True,
        dir_okay=False,
    ),
]
ProfileName = Literal["cpu", "gpu", "sim"]
Profile = Annotated[ProfileName | None, typer.Option(help="Overrides the configuration.")]
Language = Annotated[
    str | None, typer.Option(metavar="CODE", help="Language of the speech, ISO 639-1.")
]
Hotwords = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword",
        metavar="PHRASE",
        help="Expect this phrase and no other words; may be repeated.",
    ),
]
Voice = Annotated[
    str | None, typer.Option(metavar="NAME", help="A voice listed by GET /v1/audio/voices.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write to this file instead of stdout."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


FormatName = Literal["txt", "srt", "vtt", "json", "tsv", "docx"]
