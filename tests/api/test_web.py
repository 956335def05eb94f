"""What browsers load from the server."""

from starlette.testclient import TestClient

from serve_app.api import create_app
from serve_app.config import Config
from tests.fakes import models


def test_the_browsers_client_is_served_as_a_module() -> None:
    client = TestClient(create_app(models(), Config(profile="sim")))
    got = client.get("/web/voxray.js")
    assert got.status_code == 200 and "export class LiveTranscription" in got.text
    assert got.headers["content-type"].startswith("text/javascript")
    assert client.get("/web/../app.py").status_code == 404
    assert client.get("/web/%2e%2e/app.py").status_code == 404
