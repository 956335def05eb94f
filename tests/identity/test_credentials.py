"""Where a key may stand, and what happens to one that stands elsewhere."""

import pytest

from serve_app.errors import ClientError
from serve_app.identity.credentials import IN_URL, MAX_CHARS, credential, subprotocols

Pairs = list[tuple[str, str]]
KEY = "vx_secretsecret"
BROWSER = ("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{KEY}, other")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}")],
        [("Authorization", f"bearer  {KEY} ")],
        [("X-Api-Key", KEY)],
        [BROWSER],
        [("sec-websocket-protocol", "realtime"), BROWSER],
        [("authorization", f"Bearer {KEY}"), ("x-api-key", KEY), BROWSER],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
    ],
)
def test_a_key_stands_in_a_header_or_a_subprotocol(headers: Pairs) -> None:
    assert credential(headers) == KEY


@pytest.mark.parametrize(
    "headers",
    [[], [("x-api-key", "")], [("cookie", KEY)], [("sec-websocket-protocol", "realtime")]],
)
def test_elsewhere_is_no_key(headers: Pairs) -> None:
    assert credential(headers, "model=sim&intent=") == ""


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Basic {KEY}")],
        [("authorization", f"Basic {KEY}"), ("x-api-key", KEY)],
        [("authorization", KEY)],
        [("authorization", "")],
        [("authorization", "Bearer"), ("x-api-key", KEY)],
        [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer vx_different")],
        [("authorization", f"Bearer {KEY}"), ("x-api-key", "vx_different")],
        [("authorization", f"Bearer {KEY}"), ("authorization", "")],
        [("x-api-key", f"{KEY} {KEY}")],
        [("x-api-key", f"{KEY}\x00")],
        [("x-api-key", f"{KEY}\x7f")],
        [("x-api-key", f"{KEY}é")],
        [("x-api-key", f"{KEY}\u202e")],
        [("x-api-key", f"{KEY},{KEY}")],
        [("x-api-key", "k" * (MAX_CHARS + 1))],
        [("authorization", "Bearer " + "k" * 100_000)],
        [("sec-websocket-protocol", "openai-insecure-api-key.a, openai-insecure-api-key.b")],
    ],
)
def test_s2_anything_else_is_refused_without_a_quotation(headers: Pairs) -> None:
    with pytest.raises(ClientError) as refused:
        credential(headers)
    assert refused.value.code == "invalid_api_key"
    assert KEY not in refused.value.message and "vx_different" not in refused.value.message


@pytest.mark.parametrize("name", sorted([*IN_URL, "API_KEY", "api%5Fkey", "+key"]))
def test_s2_a_key_in_the_url_is_refused(name: str) -> None:
    for headers in ([], [("x-api-key", KEY)]):
        with pytest.raises(ClientError) as refused:
            credential(headers, f"model=sim&{name}={KEY}&x=1")
        assert refused.value.code == "invalid_api_key" and refused.value.status == 401
        assert "URL" in refused.value.message and KEY not in refused.value.message


def test_a_message_may_bring_the_key_but_not_another_one() -> None:
    assert credential([], in_band=[KEY]) == credential([("x-api-key", KEY)], in_band=[KEY]) == KEY
    with pytest.raises(ClientError):
        credential([("x-api-key", "vx_different")], in_band=[KEY])


def test_keys_are_no_subprotocols() -> None:
    assert subprotocols([BROWSER]) == ["realtime", "other"]
