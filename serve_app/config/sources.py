"""Where settings come from: `args` of the Serve file, and environment variables that override it.

`VOXRAY__TRANSCRIBER__ENGINE` is `transcriber.engine`: a double underscore for each dot. Other
variables of voxray have single underscores and are not settings. An error names its variable, or
the file.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from serve_app.config.root import Config

PREFIX = "VOXRAY__"
BETWEEN = "__"

Tree = dict[str, Any]


class WrongSetting(ValueError):
    """A setting that is unknown or has a wrong value, in words for the person who wrote it."""


class _Settings(BaseSettings, Config):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=BETWEEN)


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings."""
    return {name: environment[name] for name in sorted(environment) if name.startswith(PREFIX)}


def with_environment(args: Mapping[str, Any], environment: Mapping[str, str]) -> Tree:
    """`args`, overridden by the environment. Raises `WrongSetting`."""
    tree = dict(args)
    for name, value in settings_in(environment).items():
        tree = _merged(tree, _read(name, value))
    return tree


def configured(
    args: Mapping[str, Any], environment: Mapping[str, str], file: object = "args"
) -> Config:
    """The tree of `args`, which has what the environment overrides already.

    Raises `WrongSetting` with a line for every mistake: where it is, and what is allowed.
    """
    try:
        return Config.model_validate(args)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        lines = [_mistake(it, settings_in(environment), file) for it in wrong]
        raise WrongSetting("\n".join(lines)) from error


def _read(name: str, value: str) -> Tree:
    """One variable as a tree."""
    source = EnvSettingsSource(_Settings)
    source.env_vars = {name.lower(): value}
    try:
        tree = source()
    except ValueError as error:  # also pydantic-settings' own
        raise WrongSetting(f"{name}: not valid JSON") from error
    if not tree:
        allowed = sorted(Config.model_fields)
        section = _path(name)[0]
        raise WrongSetting(f"{name}: {_unknown(section, allowed)}")
    return tree


def _merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    both = {
        key: _merged(tree[key], it)
        for key, it in over.items()
        if isinstance(it, Mapping) and isinstance(tree.get(key), Mapping)
    }
    return {**tree, **over, **both}


def _mistake(error: Any, variables: Mapping[str, str], file: object) -> str:
    where = tuple(map(str, error["loc"] or ("args",)))
    said = " or ".join(_blamed(where, variables)) or f"{file}: {'.'.join(where)}"
    if error["type"] != "extra_forbidden":
        return f"{said}: {error['msg'].removeprefix('Value error, ')}"
    return f"{said}: {_unknown(where[-1], sorted(_model_at(where[:-1]).model_fields))}"


def _unknown(key: str, allowed: list[str]) -> str:
    suggestion = "".join(f"; did you mean {it}?" for it in get_close_matches(key, allowed, 1))
    return f"unknown key{suggestion}; allowed: {', '.join(allowed)}"


def _blamed(where: tuple[str, ...], variables: Mapping[str, str]) -> Iterator[str]:
    """The variables at this place of the tree, above it or below it."""
    for name in variables:
        if all(a == b for a, b in zip(_path(name), where, strict=False)):
            yield name


def _path(name: str) -> list[str]:
    return name.removeprefix(PREFIX).lower().split(BETWEEN)


def _model_at(path: tuple[str, ...]) -> type[BaseModel]:
    """The section at a place of the tree. In a section of named ones, a step is a name."""
    at: Any = Config
    for step in path:
        at = at.model_fields[step].annotation if _is_section(at) else get_args(at)[-1]
    assert _is_section(at)
    section: type[BaseModel] = at
    return section


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
