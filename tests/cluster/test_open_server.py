"""A server of a cluster that needs no keys says so in its log."""

import logging

import pytest

from serve_app.cluster.environment import LANES_HOST
from serve_app.config import Config
from serve_app.replicas import warn_if_open


def said(caplog: pytest.LogCaptureFixture, auth: str) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "voxray"):
        warn_if_open(Config.model_validate({"auth": auth}))
    return [record.getMessage() for record in caplog.records]


def test_an_open_server_is_warned_of_unless_its_address_was_checked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LANES_HOST, raising=False)
    assert said(caplog, "off") == ["keys_not_needed"]
    assert said(caplog, "on") == []
    monkeypatch.setenv(LANES_HOST, "127.0.0.1")
    assert said(caplog, "off") == []
