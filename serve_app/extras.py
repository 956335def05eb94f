"""Packages that only some features need. They are imported on first use; an error names the extra
that installs a missing one."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from serve_app.errors import ClientError


class Extra(NamedTuple):
    """One of the extras in pyproject.toml."""

    name: str
    package: str
    """The name for `pip install`."""
    module: str
    """The name for `import`."""
    feature: str


DOCX = Extra("docx", "python-docx", "docx", "the docx export")
POSTGRES = Extra("postgres", "asyncpg", "asyncpg", "a PostgreSQL database")
S3 = Extra("s3", "obstore", "obstore", "an object store")
OTEL = Extra(
    "otel",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "sending traces",
)
REDIS = Extra("redis", "limits and redis", "redis", "sharing limits in Redis")
SOCKET_IO = Extra("socketio", "python-socketio", "socketio", "Socket.IO")

ENGINES = {
    name: Extra(extra, package, module, f"the engine {name}")
    for name, extra, package, module in (
        ("pocketsphinx", "cpu", "pocketsphinx", "pocketsphinx"),
        ("espeak", "espeak", "espeakng-loader", "espeakng_loader"),
        ("openai", "openai", "openai", "openai"),
        ("voxtral-realtime", "gpu", "vllm", "vllm"),
        ("voxtral", "gpu", "vllm", "vllm"),
        ("vllm", "gpu", "vllm", "vllm"),
        ("voxtral-transformers", "transformers", "transformers", "transformers"),
        ("kokoro", "kokoro", "kokoro", "kokoro"),
        ("pyannote", "pyannote", "pyannote.audio", "pyannote.audio"),
    )
}
"""What each engine needs, by its name."""


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
    try:
        return find_spec(extra.module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


def check_driver(database_url: str) -> None:
    """Raises `MissingExtra` if the database needs a package that is not installed."""
    if database_url.startswith("postgresql+asyncpg:"):
        module_of(POSTGRES)
