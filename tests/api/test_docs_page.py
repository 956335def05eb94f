"""`/docs` needs nothing that this server does not serve."""

import re

import pytest
from starlette.testclient import TestClient

from serve_app.api import create_app
from serve_app.config import Config
from tests.fakes import models


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(models(), Config(profile="sim")))


def test_the_page_loads_from_here_alone(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and "://" not in page.text
    assert "script-src 'self';" in page.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert client.get(f"/{link}").status_code == 200
    assert not re.findall(r"<script>|\son\w+=", page.text), "the policy forbids inline scripts"


def test_it_shows_our_openapi(client: TestClient) -> None:
    assert '"openapi.json"' in client.get("/docs/start.js").text
    assert client.get("/openapi.json").json()["info"]["title"] == "voxray"
    assert "/docs" not in client.get("/openapi.json").json()["paths"]
