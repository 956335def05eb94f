"""Packages that only some features need: imported when the feature is used, named when missing."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from serve_app.errors import ClientError


class Extra(NamedTuple):
    """One of the extras in pyproject.toml."""

    name: str
    package: str
    """As `pip` calls it."""
    module: str
    """As `import` calls it."""
    feature: str


DOCX = Extra("docx", "python-docx", "docx", "The docx export")
POSTGRES = Extra("postgres", "asyncpg", "asyncpg", "A PostgreSQL database")
S3 = Extra("s3", "obstore", "obstore", "An object store")
SOCKET_IO = Extra("socketio", "python-socketio", "socketio", "Socket.IO")

ENGINES = {
    "pocketsphinx": Extra("cpu", "pocketsphinx", "pocketsphinx", "The engine pocketsphinx"),
    "espeak": Extra("espeak", "espeakng-loader", "espeakng_loader", "The engine espeak"),
    "openai": Extra("openai", "openai", "openai", "The engine openai"),
}
"""What small engines need, by the engine's name."""


class MissingExtra(ClientError):
    """The server lacks an optional package."""

    def __init__(self, extra: Extra) -> None:
        super().__init__(
            "missing_extra",
            f"{extra.feature} needs {extra.package}: pip install 'voxray[{extra.name}]'",
        )


def module_of(extra: Extra) -> Any:
    """The extra's module. Raises `MissingExtra`."""
    try:
        return import_module(extra.module)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra) from error


def is_installed(extra: Extra) -> bool:
    return find_spec(extra.module) is not None
