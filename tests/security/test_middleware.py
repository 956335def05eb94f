"""What every request passes first."""

import pytest
from ray.serve._private.http_util import RequestIdMiddleware
from starlette.testclient import TestClient

from serve_app.api import create_app
from serve_app.config import Config
from tests.fakes import models, not_measured


@pytest.mark.parametrize("behind_serve", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "authorization"),
    [("GET", "/v1/models", ""), ("GET", "/nothing", ""), ("POST", "/v1/jobs", "Bearer ek_x")],
)
def test_every_answer_has_one_request_id(
    behind_serve: bool, method: str, path: str, authorization: str
) -> None:
    app = create_app(models(), not_measured(Config(profile="sim")), serve_adds_id=behind_serve)
    client = TestClient(RequestIdMiddleware(app) if behind_serve else app)
    headers = {"x-request-id": "mine", "authorization": authorization}
    answer = client.request(method, path, headers=headers)
    assert answer.headers.get_list("x-request-id") == ["mine"]
    del headers["x-request-id"]
    assert len(client.request(method, path, headers=headers).headers.get_list("x-request-id")) == 1
