"""The files of the page, as they are served."""

import hashlib
import json
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from serve_app.api import create_app
from serve_app.api.web import CSP
from serve_app.config import Config
from tests.fakes import models

VENDOR = Path(__file__).parents[2] / "serve_app/web/vendor"


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(models(), Config(profile="sim")))


def test_the_page_has_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == CSP
    assert "unsafe" not in CSP and "*" not in CSP
    assert "<script>" not in page.text and "style=" not in page.text


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css", "/web/vendor/lit.js"])
def test_a_file_comes_compressed_and_once(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.headers["content-encoding"] == "gzip"
    assert (
        first.headers["vary"] == "Accept-Encoding" and first.headers["cache-control"] == "no-cache"
    )
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == first.text


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/nothing.js",
        "/web/../app.py",
        "/web/%2e%2e/app.py",
        "/web//etc/passwd",
        "/web/views",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_only_reading_is_allowed(client: TestClient) -> None:
    answer: httpx.Response = client.post("/web/app.js")
    assert answer.status_code == 405


def test_the_libraries_are_what_was_vendored() -> None:
    listed = {
        name: hashed
        for library in json.loads((VENDOR / "vendor.json").read_text())
        for name, hashed in library["files"].items()
    }
    found = {
        it.name: hashlib.sha256(it.read_bytes()).hexdigest()
        for it in VENDOR.iterdir()
        if it.name != "vendor.json"
    }
    assert found == listed
