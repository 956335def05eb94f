"""Tenants in the configuration."""

import pytest

from serve_app.config import Config
from serve_app.config.sources import WrongSetting, configured
from serve_app.config.tenants import NO_LIMITS, UNNAMED, tenant_config

TENANTS = {
    "default": {"limits": {"sessions": 1}},
    "acme": {"weight": 2, "key_limits": {"sessions": 3}, "keys": {"vx_1": {"sessions": 4}}},
}


def test_a_tenant_that_is_not_named_is_as_default() -> None:
    tenants = Config(tenants=TENANTS).tenants
    assert tenant_config(tenants, "other").limits.sessions == 1
    assert tenant_config(tenants, "acme").limits.sessions == 0
    assert tenant_config(tenants, "acme").weight == 2
    assert tenant_config({}, "other") == UNNAMED


def test_a_key_has_its_own_limits_or_those_of_every_key() -> None:
    acme = tenant_config(Config(tenants=TENANTS).tenants, "acme")
    assert acme.of_key("vx_1").sessions == 4
    assert acme.of_key("vx_2").sessions == 3
    assert acme.of_key("") == NO_LIMITS


def test_a_wrong_limit_is_named_with_its_tenant() -> None:
    wrong = {"tenants": {"acme": {"limits": {"session": 1}}}}
    with pytest.raises(WrongSetting, match=r"tenants.acme.limits.session: unknown key; did you"):
        configured(wrong, {})
