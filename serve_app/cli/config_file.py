"""The Serve configuration of a command: the given file, ./serve_config.yaml, or the package's.

Environment variables override the file, and options of the command override both.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from serve_app.cli import Failure, console
from serve_app.config import Config
from serve_app.config.sources import WrongSetting, configured, with_environment

NAME = "serve_config.yaml"
DEFAULT = Path(__file__).parent.parent / NAME
"""Package data; in a checkout, a link to the file in the root."""


def config_file(path: Path | None) -> Path:
    """`path`, else ./serve_config.yaml if it exists, else the one in the package."""
    if path:
        return path
    here = Path(NAME)
    chosen = here if here.exists() else DEFAULT
    console.print(f"configuration: {chosen.resolve()}")
    return chosen


def settings(
    file: Path, host: str | None, port: int | None, profile: str | None
) -> tuple[dict[str, Any], tuple[str, int]]:
    """The application's args and the address, from the Serve file and what overrides it.

    Raises `Failure` for a file that is no Serve configuration, and for an unknown variable.
    """
    try:
        deploy = yaml.safe_load(file.read_text())
        args: dict[str, Any] = dict(deploy["applications"][0].get("args") or {})
        http = dict(deploy.get("http_options") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure(f"{file}: cannot be read: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = "not a Serve configuration: it needs `applications`, a list, with `args`"
        raise Failure(f"{file}: {reason}") from error
    args = overridden(args)
    if profile:
        args["profile"] = profile
    return args, (host or http.get("host", "127.0.0.1"), port or http.get("port", 8000))


def validated(file: Path, args: dict[str, Any]) -> Config:
    """Raises `Failure` that names every wrong key or variable and what is allowed."""
    try:
        return configured(args, os.environ, file)
    except WrongSetting as error:
        raise Failure(str(error)) from error


def overridden(args: dict[str, Any]) -> dict[str, Any]:
    """`args` with the settings of the environment. Raises `Failure` for an unknown variable."""
    try:
        return with_environment(args, os.environ)
    except WrongSetting as error:
        raise Failure(str(error)) from error
