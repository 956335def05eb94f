"""Integers that no 64 bits hold: refused wherever a client may write one."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.openapi.utils import get_openapi

from serve_app.api import create_app
from serve_app.config import Config
from serve_app.errors import ClientError
from serve_app.security.json_bounds import check_json
from tests.fakes import models, not_measured, served

HUGE = 14122188514115088023552
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer", "maximum": HUGE}}},
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.mark.parametrize("name", ["channels", "sample_rate"])
def test_a_query_is_refused(address: str, name: str) -> None:
    answer = httpx.post(f"http://{address}/transcribe/stream?{name}={HUGE}", content=b"")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == name


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "seed": HUGE}),
        ("/v1/chat/completions", {**CHAT, "max_tokens": HUGE}),
        ("/v1/chat/completions", {**CHAT, "metadata": {"a": [HUGE]}}),
        ("/v1/realtime/client_secrets", {"session": {"type": "realtime", "tools": [TOOL]}}),
        ("/v1/realtime/client_secrets", {"expires_after": {"seconds": -HUGE}}),
        ("/config/update", {"limits": {"max_sessions": HUGE}}),
    ],
)
def test_a_json_body_is_refused(address: str, path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(f"http://{address}{path}", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_request" and str(HUGE) in error["message"]


def test_digits_in_text_and_the_largest_integers_pass() -> None:
    check_json(json.dumps({"text": str(HUGE), "a": [2**63 - 1, -(2**63), 1e300]}).encode())
    check_json(b'{"text": "' + b"9" * 30 + b'", ')
    for beyond in (2**63, -(2**63) - 1, 10**18 * 10**18):
        with pytest.raises(ClientError, match="out of range"):
            check_json(json.dumps({"a": {"b": beyond}}).encode())


def integers(node: Any, schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if node.get("type") == "integer" and "const" not in node:
        yield node
    if "$ref" in node:
        yield from integers(schemas[node["$ref"].rsplit("/", 1)[1]], schemas)
    for it in node.values():
        yield from integers(it, schemas)


def test_every_integer_parameter_has_bounds() -> None:
    app = create_app(models(), not_measured(Config(profile="sim")))
    spec = get_openapi(title="", version="", routes=app.routes)
    asked = [
        operation.get(part)
        for path in spec["paths"].values()
        for operation in path.values()
        for part in ("parameters", "requestBody")
    ]
    found = list(integers(asked, spec["components"]["schemas"]))
    assert len(found) > 5
    for it in found:
        assert {"minimum", "maximum"} <= set(it), it


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_no_way_around(address: str, encoding: str) -> None:
    body = json.dumps({"session": {"type": "realtime", "tools": [TOOL]}}).encode(encoding)
    headers = {"Content-Type": "application/json"}
    url = f"http://{address}/v1/realtime/client_secrets"
    answer = httpx.post(url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("value", ["1", "{}", "[]", '{"role":"x"}', "1111111111111111111"])
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(address: str, value: str) -> None:
    body = '{"messages":[' + ",".join([value] * (4_000_000 // (len(value) + 1))) + "]}"
    headers = {"Content-Type": "application/json"}
    url = f"http://{address}/v1/chat/completions"
    answer = httpx.post(url, content=body.encode(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "message_too_large")


def test_long_text_and_audio_are_not_many_values() -> None:
    check_json(json.dumps({"audio": "A/+=" * 1_000_000}).encode())
    check_json(json.dumps({"text": 'He said, "yes", and left. ' * 15_000}).encode())


def test_integers_are_found_outside_of_strings_only() -> None:
    check_json(rb'{"a":"\\", "b":"\"99999999999999999999", "c":1e-99999999999999999999}')
    with pytest.raises(ClientError, match="out of range"):
        check_json(rb'{"a":"\\\"", "b":-99999999999999999999}')
