"""Settings that may change while the server runs, and their current values. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from serve_app.config import Config, Limits
from serve_app.config.engines import VadConfig
from serve_app.errors import ClientError, invalid

RUNNING: dict[str, tuple[str, ...]] = {
    "limits": (
        "client_write_timeout_s",
        "closing_timeout_s",
        "idle_timeout_s",
        "max_buffered_audio_s",
        "max_sessions",
        "max_silence_s",
        "max_utterance_s",
        "retry_after_s",
    ),
    "vad": ("aggressiveness", "min_silence_ms", "min_speech_ms", "prefix_padding_ms"),
}
"""`max_sessions`, `retry_after_s` and `client_write_timeout_s` apply at once; the others to new
sessions. Everything else is fixed at the start."""

Changes = Mapping[str, Mapping[str, Any]]

Follower = Callable[[Limits, VadConfig], None]
"""Gets the sections that may change, at once and on every change."""


class RuntimeSettings:
    """The configuration with the changes since the start. Followers are called on every change."""

    def __init__(self, config: Config) -> None:
        self._config = self._current = config
        self._changes: dict[str, dict[str, Any]] = {}
        self._followers: list[Follower] = []

    @property
    def current(self) -> Config:
        return self._current

    @property
    def changes(self) -> Changes:
        return self._changes

    def follow(self, follower: Follower) -> None:
        """A replica that starts late applies stored changes before it has any followers."""
        self._followers.append(follower)
        follower(self._current.limits, self._current.vad)

    def checked(self, asked: Any) -> dict[str, dict[str, Any]]:
        """All changes, including these. Raises `ClientError` for a wrong key or value."""
        if not isinstance(asked, dict) or not all(isinstance(it, dict) for it in asked.values()):
            raise ClientError(
                "invalid_message",
                'send an object of sections, such as {"limits": {"max_sessions": 100}}',
            )
        for section, values in asked.items():
            for key in values or ("",):
                if isinstance(values.get(key), bool):  # which pydantic would take for 0 or 1
                    raise ClientError(
                        "invalid_request",
                        f"{section}.{key}: send a number",
                        param=f"{section}.{key}",
                    )
                if key not in RUNNING.get(section, ()):
                    raise ClientError(
                        "not_while_running",
                        f"{section}.{key} cannot change at run time; these can: {_allowed()}",
                    )
        together = {
            section: {**self._changes.get(section, {}), **asked.get(section, {})}
            for section in RUNNING
        }
        self._with(together)
        return together

    def apply(self, changes: Changes) -> None:
        """`changes` come from `checked`, of this process or another."""
        config = self._with(changes)
        self._changes = {section: dict(values) for section, values in changes.items()}
        self._current = config
        for follower in self._followers:
            follower(config.limits, config.vad)

    def _with(self, changes: Changes) -> Config:
        tree = self._config.model_dump()
        for section, values in changes.items():
            tree[section].update(values)
        try:
            return Config.model_validate(tree)
        except ValidationError as error:
            raise invalid(error, tree) from error


def _allowed() -> str:
    return "; ".join(f"{section}: {', '.join(keys)}" for section, keys in RUNNING.items())
