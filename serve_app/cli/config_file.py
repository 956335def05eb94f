"""The Serve configuration file that a command reads: given, here, or voxray's own."""

from pathlib import Path

from serve_app.cli import console

NAME = "serve_config.yaml"
DEFAULT = Path(__file__).parent.parent / NAME
"""Package data: in a checkout a link to the file at the top."""


def config_file(given: Path | None) -> Path:
    """`given`, else ./serve_config.yaml if it is there, else the one in the package."""
    if given:
        return given
    here = Path(NAME)
    chosen = here if here.exists() else DEFAULT
    console.print(f"configuration: {chosen.resolve()}")
    return chosen
