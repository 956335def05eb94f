"""Checks the options that a client asks of an engine, in any dialect. Pure.

An option is used or refused. Options that OpenAI's clients always send, and whose refusal would
break them, are named in the answer's `ignored` instead. None is dropped silently.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from deployments.interfaces import Option, Options, SpeechOptions
from serve_app.config import Limits
from serve_app.errors import ClientError

MAX_IGNORED = 32
NAME = re.compile(r"[A-Za-z0-9_.\[\]=-]{1,80}")
NEVER_GIVEN = {"tenant", "tenant_id", "owner", "key", "scopes", "status", "state"}
IGNORED_HEADER = "x-voxray-ignored"
"""Lists the ignored options, separated by commas, for answers that are not JSON."""


class EngineInfo(NamedTuple):
    """The properties of an engine that are known without a call to it."""

    name: str
    options: Options = frozenset()
    languages: tuple[str, ...] | None = None
    """ISO 639-1 codes of a transcriber; None: any."""
    revises: bool = True
    """A transcriber's final may differ from the partials before it."""

    def takes(self, language: str | None) -> bool:
        """Whether the engine can use the language, or recognises only that one."""
        only = self.languages is not None and len(self.languages) == 1
        return not language or only or Option.LANGUAGE in self.options


class Engines(NamedTuple):
    """One of each kind."""

    transcriber: EngineInfo
    chat: EngineInfo
    speaker: EngineInfo
    diarizer: EngineInfo

    def names(self) -> dict[str, str]:
        """Each kind's engine by its name."""
        return {kind: engine.name for kind, engine in self._asdict().items()}


def check_options(options: SpeechOptions, engine: EngineInfo, limits: Limits) -> None:
    """Raises `ClientError` for options that the engine does not support or the limits forbid."""
    check_language(options.language, engine)
    if not engine.takes(options.language):
        raise unsupported("language", engine)
    _check_sizes(options, limits)
    if options.hotwords and Option.HOTWORDS not in engine.options:
        raise unsupported("hotwords", engine)
    if options.grammar and Option.GRAMMAR not in engine.options:
        raise unsupported("grammar", engine)


def check_language(language: str | None, engine: EngineInfo) -> None:
    """Raises `ClientError` for a language that the engine does not know."""
    primary = (language or "").split("-")[0].lower()
    if primary and engine.languages is not None and primary not in engine.languages:
        raise ClientError(
            "unsupported_language",
            f"engine {engine.name} does not know language {repr(language)[:40]}, only "
            f"{', '.join(engine.languages)}",
            param="language",
        )


def check_tool_choice(choice: str, tools: Sequence[str], engine: EngineInfo) -> None:
    """Raises `ClientError` for a tool call that is required but impossible."""
    if choice in ("auto", "none"):
        return
    if not {Option.TOOLS, Option.TOOL_CHOICE} <= engine.options:
        raise unsupported("tool_choice", engine)
    if not tools or choice not in ("required", *tools):
        reason = f"tool_choice {choice[:64]!r} needs a tool of that kind in tools"
        raise ClientError("invalid_value", reason, param="tool_choice")


def unsupported(param: str, engine: EngineInfo) -> ClientError:
    """The error for an option that the engine does not support; it names those it supports."""
    used = ", ".join(sorted(engine.options)) or "no options"
    reason = f"engine {engine.name} does not support {param}; it supports {used}"
    return ClientError("unsupported_option", reason, param=param)


def not_in_force(asked: Mapping[str, Any], used: Mapping[str, Any], within: str = "") -> list[str]:
    """Paths of what was asked and is not used so, as `audio.input.noise_reduction`."""
    return listed(_differences(asked, used, within))


def unknown(fields: Mapping[str, Any] | None) -> list[str]:
    """Fields of a body that have no effect. Raises `ClientError` for one that nobody may believe to
    have any: whose something is, and how far it is, do not come from a body."""
    names = [name for name, value in (fields or {}).items() if value is not None]
    for name in NEVER_GIVEN & set(names):
        raise ClientError("invalid_request", f"{name} cannot be set by a request", param=name)
    return names


def listed(names: Iterable[str]) -> list[str]:
    """Names of options, safe to repeat in an answer: plain, each once, at most `MAX_IGNORED`."""
    plain = dict.fromkeys(name if NAME.fullmatch(name) else "?" for name in names)
    return list(plain)[:MAX_IGNORED]


def noted(ignored: Iterable[str]) -> dict[str, Any]:
    """The answer's field for ignored options; empty if there are none."""
    names = list(ignored)
    return {"ignored": names} if names else {}


def noted_header(ignored: Iterable[str]) -> dict[str, str]:
    names = ", ".join(ignored)
    return {IGNORED_HEADER: names} if names else {}


def _differences(
    asked: Mapping[str, Any], used: Mapping[str, Any], within: str = ""
) -> Iterator[str]:
    for key, value in asked.items():
        path, mine = f"{within}{key}", used.get(key)
        if isinstance(value, dict) and isinstance(mine, dict):
            yield from _differences(value, mine, f"{path}.")
        elif isinstance(value, list) and isinstance(mine, list):
            if value and not mine:
                yield path
        elif value is not None and value != mine:
            yield path


def _check_sizes(options: SpeechOptions, limits: Limits) -> None:
    if len(options.hotwords) > limits.max_hotwords:
        raise ClientError(
            "too_many_hotwords",
            f"{len(options.hotwords)} hotwords; at most {limits.max_hotwords} are allowed",
            param="hotwords",
        )
    if len((options.grammar or "").encode()) > limits.max_grammar_bytes:
        raise ClientError(
            "grammar_too_large",
            f"a grammar has at most {limits.max_grammar_bytes} bytes",
            param="grammar",
        )
