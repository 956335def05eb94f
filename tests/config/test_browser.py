"""The configuration of what browsers may do."""

import pytest
from pydantic import ValidationError

from serve_app.config import Config


@pytest.mark.parametrize("link", ["https://grafana.example/d/1?x=y", "http://127.0.0.1:8265"])
def test_links_are_web_addresses(link: str) -> None:
    config = Config.model_validate({"browser": {"links": {"Grafana": link}}})
    assert config.browser.links == {"Grafana": link}


@pytest.mark.parametrize("link", ["javascript:alert(1)", "grafana", "", "https://a b", 'http://"'])
def test_nothing_else_is_a_link(link: str) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"browser": {"links": {"Grafana": link}}})
