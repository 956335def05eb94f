"""The Serve configuration of a command: the given file, ./serve_config.yaml, or the package's."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from serve_app.cli import Failure, console
from serve_app.config import Config

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

    Raises `Failure` for a file that is no Serve configuration.
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
    if profile:
        args["profile"] = profile
    return args, (host or http.get("host", "127.0.0.1"), port or http.get("port", 8000))


def validated(file: Path, args: dict[str, Any]) -> Config:
    """Raises `Failure` that names every wrong key and what is allowed."""
    try:
        return Config.model_validate(args)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        raise Failure("\n".join(f"{file}: {_mistake(it)}" for it in wrong)) from error


def _mistake(error: Any) -> str:
    *parents, key = error["loc"] or ("args",)
    name = ".".join(map(str, (*parents, key)))
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    allowed = sorted(_model_at(parents).model_fields)
    suggestion = "".join(f"; did you mean {it}?" for it in get_close_matches(str(key), allowed, 1))
    return f"{name}: unknown key{suggestion}; allowed: {', '.join(allowed)}"


def _model_at(path: list[Any]) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for step in path:
        found = model.model_fields[step].annotation if step in model.model_fields else None
        if isinstance(found, type) and issubclass(found, BaseModel):
            model = found
    return model
