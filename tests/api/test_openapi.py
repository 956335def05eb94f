"""S9: what the OpenAPI document promises is what is answered; schemathesis tries to prove otherwise."""

import os
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from serve_app.api import create_app
from serve_app.config import Config
from tests.fakes import models, not_measured, served

EXAMPLES = int(os.environ.get("VOXRAY_EXAMPLES", "10"))
"""Of requests to a route, good ones and bad ones."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage = {"directory": str(tmp_path_factory.mktemp("openapi"))}
    with served(Config.model_validate({"profile": "sim", "storage": storage})) as address:
        yield address


schema = schemathesis.openapi.from_dict(
    create_app(models(), not_measured(Config(profile="sim"))).openapi()
)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_schemathesis_finds_nothing(case: Any, address: str) -> None:
    """A schema cannot say what is a recording, a voice or a word: what it allows may be refused."""
    excluded = [positive_data_acceptance]
    if case.path.startswith("/v1/uploads"):  # tus wants 412 for what a schema finds wrong
        excluded.append(negative_data_rejection)
    case.call_and_validate(base_url=f"http://{address}", timeout=30, excluded_checks=excluded)


def test_every_error_has_a_schema(address: str) -> None:
    document = httpx.get(f"http://{address}/openapi.json").json()
    error = {"$ref": "#/components/schemas/Error"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            assert {"401", "500", "503"} <= set(answers), (method, path)
            for status, answer in answers.items():
                if int(status) >= 400:
                    assert answer["content"] == {"application/json": {"schema": error}}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_what_is_not_json_is_in_the_document(address: str) -> None:
    paths = httpx.get(f"http://{address}/openapi.json").json()["paths"]

    def kinds(method: str, path: str) -> set[str]:
        return set(paths[path][method]["responses"]["200"]["content"])

    assert {"audio/mpeg", "audio/wav", "text/event-stream"} <= kinds("post", "/v1/audio/speech")
    assert {"text/vtt", "application/x-subrip"} <= kinds("post", "/v1/transcribe")
    assert kinds("post", "/v1/chat/completions") == {"application/json", "text/event-stream"}


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        ("/v1/jobs/some", "GET, DELETE, HEAD, OPTIONS"),
        ("/v1/audio/speech", "POST, OPTIONS"),
        ("/v1/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_allow_has_all_methods_of_a_path(address: str, path: str, allow: str) -> None:
    refused = httpx.put(f"http://{address}{path}")
    assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    assert refused.json()["error"]["code"] == "method_not_allowed"
    options = httpx.options(f"http://{address}{path}")
    assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")
    assert httpx.options(f"http://{address}/v1/no/such").status_code == 404


def test_head_is_get_without_the_body(address: str) -> None:
    head, get = (httpx.request(it, f"http://{address}/v1/models") for it in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]
    assert httpx.head(f"http://{address}/v1/models/nobody").status_code == 404
