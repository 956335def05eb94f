"""Settings that change while the server runs: each key reaches everyone who goes by it."""

from functools import partial
from typing import Any

import pytest

from serve_app.config import Config
from serve_app.config.runtime import RUNNING, RuntimeSettings
from serve_app.conversation.driver import Conversations, chat_calls, speech_calls
from serve_app.conversation.voices import VoiceCatalog
from serve_app.errors import ClientError
from serve_app.identity.principal import EVERYBODY
from serve_app.live.driver import LiveSessions
from serve_app.observability.metrics import Metrics
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.usage.meter import Meter
from serve_app.usage.table import today
from tests.fakes import admitting_all, models

LIMITS: dict[str, Any] = {
    "client_write_timeout_s": 7.5,
    "closing_timeout_s": 7.5,
    "idle_timeout_s": 7.5,
    "max_buffered_audio_s": 7.5,
    "max_sessions": 7,
    "max_silence_s": 7.5,
    "max_utterance_s": 7.5,
    "retry_after_s": 7,
}
OF_CONVERSATIONS = {"idle_timeout_s", "max_buffered_audio_s", "max_silence_s", "max_utterance_s"}
"""Limits that conversations have of their own: conversation.idle_timeout_s, ..."""

VAD = {"aggressiveness": 3, "min_silence_ms": 700, "min_speech_ms": 700, "prefix_padding_ms": 700}


def changed(section: str, **values: Any) -> tuple[RuntimeSettings, LiveSessions, Conversations]:
    """Everybody who goes by the settings, after these have changed."""
    config, there, metrics = Config(profile="sim"), models(), Metrics()
    settings = RuntimeSettings(config)
    sessions = LiveSessions(
        config.limits,
        config.vad,
        config.transcriber,
        there.vad,
        there.transcriber,
        metrics,
        admitting_all(metrics),
        meter := Meter(today),
    )
    voices = VoiceCatalog(there.voices, "sim", {}, {}, False)
    chat = chat_calls(there.chat, config.chat, meter, sessions.admission.weights.payer)
    speech = speech_calls(there.speaker, config.speaker, meter, sessions.admission.weights.payer)
    conversations = Conversations(config.conversation, sessions, chat, speech, voices, metrics)
    settings.follow(sessions.configure)
    settings.apply(settings.checked({section: values}))
    return settings, sessions, conversations


def test_a_replica_that_starts_late_has_the_changes_from_its_first_session_on() -> None:
    config, there = Config(profile="sim"), models()
    settings = RuntimeSettings(config)
    settings.apply(settings.checked({"limits": {"max_sessions": 7}}))
    sessions = LiveSessions(
        config.limits,
        config.vad,
        config.transcriber,
        there.vad,
        there.transcriber,
        Metrics(),
        admitting_all(),
        Meter(today),
    )
    settings.follow(sessions.configure)
    assert sessions.limits.max_sessions == 7


def test_the_tests_know_every_key() -> None:
    assert {"limits": tuple(LIMITS), "vad": tuple(VAD)} == RUNNING


@pytest.mark.parametrize(("key", "value"), LIMITS.items())
def test_a_limit_reaches_sessions_and_conversations(key: str, value: Any) -> None:
    settings, sessions, conversations = changed("limits", **{key: value})
    assert getattr(settings.current.limits, key) == value
    live = sessions.open(lambda event: None, lambda code: None)
    for limits in (sessions.limits, live._session._limits):
        assert getattr(limits, key) == value
    if key not in OF_CONVERSATIONS:
        assert getattr(conversations._limits(), key) == value


@pytest.mark.parametrize(("key", "value"), VAD.items())
def test_a_vad_setting_reaches_new_sessions(key: str, value: int) -> None:
    _, sessions, conversations = changed("vad", **{key: value})
    listening = sessions.open(lambda event: None, lambda code: None)._session._listening
    found = (
        listening.prefix_padding_ms
        if key == "prefix_padding_ms"
        else getattr(listening.endpoint, key)
    )
    assert found == value
    if key == "aggressiveness":  # the others are a conversation's own: conversation.min_…
        assert conversations.listening().endpoint.aggressiveness == value


def test_refusals_say_the_retry_after_of_now() -> None:
    settings, sessions, conversations = changed("limits", retry_after_s=9, max_sessions=1)
    places = ConcurrencyLimit(
        1, "too_many_requests", "requests", lambda: settings.current.limits.retry_after_s
    )
    sessions.open(lambda event: None, lambda code: None)
    with places.slot("default"):
        for refuse in (
            partial(sessions.admit, EVERYBODY),
            partial(conversations.admit, EVERYBODY),
            lambda: places.slot("default").__enter__(),
        ):
            with pytest.raises(ClientError) as refused:
                refuse()
            assert refused.value.retry_after_s == 9


def test_a_change_comes_on_top_of_those_before() -> None:
    settings, sessions, _ = changed("limits", max_sessions=3)
    settings.apply(settings.checked({"limits": {"retry_after_s": 9}}))
    assert (sessions.limits.max_sessions, sessions.limits.retry_after_s) == (3, 9)
    assert settings.changes["limits"] == {"max_sessions": 3, "retry_after_s": 9}


def test_what_no_timer_could_take_is_refused() -> None:
    settings = RuntimeSettings(Config(profile="sim"))
    for value in (1e30, float("inf"), float("nan")):
        with pytest.raises(ClientError, match=r"limits\.idle_timeout_s") as refused:
            settings.checked({"limits": {"idle_timeout_s": value}})
        assert refused.value.code == "invalid_request"


def test_true_is_no_number() -> None:
    settings, _, _ = changed("limits", max_sessions=7)
    with pytest.raises(ClientError, match=r"limits\.max_sessions"):
        settings.checked({"limits": {"max_sessions": True}})
