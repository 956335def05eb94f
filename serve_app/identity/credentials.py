"""Where a key may stand in a request. Pure.

In a header, `Authorization: Bearer KEY` or `x-api-key: KEY`. A browser cannot set headers of a
WebSocket, so there it may be a subprotocol, as OpenAI's clients send it. Never in the URL, which
proxies and browsers keep. Here no message quotes what a client sent: it may be a key.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_plus

from serve_app.errors import ClientError
from serve_app.identity.login_refused import SEND

KEY_SUBPROTOCOL = "openai-insecure-api-key."
MAX_CHARS = 8_192
"""Of a key; a token of an identity provider may be long."""

IN_URL = frozenset(
    "access_token api-key api_key apikey auth authorization bearer client_secret key "
    "openai-api-key secret token x-api-key xi-api-key".split()
)
"""Parameters in which other servers take a key."""

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
"""Visible ASCII without the comma, which separates subprotocols."""

Headers = Iterable[tuple[str, str]]
"""A header that came several times is there as often."""


def credential(headers: Headers, query: str = "", in_band: Iterable[str] = ()) -> str:
    """The key of a request; "" if it has none. `in_band`: those that came in a message.

    Raises `ClientError` for one that stands where none may, and for several that differ.
    """
    check_url(query)
    found = {key for key in (*_keys(list(headers)), *in_band) if key}
    if len(found) > 1:
        raise ClientError("invalid_api_key", "the request has several keys: send one")
    key = next(iter(found), "")
    if key and (len(key) > MAX_CHARS or not _KEY.fullmatch(key)):
        reason = f"a key has at most {MAX_CHARS} visible ASCII characters, without commas"
        raise ClientError("invalid_api_key", reason)
    return key


def check_url(query: str) -> None:
    """Raises `ClientError` for a key in the URL."""
    for name in filter(_is_key, query.split("&")):
        reason = f"`{unquote_plus(name.split('=')[0]).lower()}`: a key must not be in the URL; "
        raise ClientError("invalid_api_key", f"{reason}{SEND}, and replace a key that was")


def lenient(headers: Headers) -> Iterator[str]:
    """What stands where a key may stand, where none is needed."""
    for name, value in headers:
        match name.lower():
            case "authorization" if value[:7].lower() == "bearer ":
                yield value[7:].strip()
            case "x-api-key":
                yield value.strip()
            case "sec-websocket-protocol":
                yield from _of_subprotocols(value)


def subprotocols(headers: Headers) -> list[str]:
    """What the client offers, without keys."""
    offered = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    words = [word.strip() for value in offered for word in value.split(",")]
    return [word for word in words if not word.startswith(KEY_SUBPROTOCOL)]


def _keys(headers: list[tuple[str, str]]) -> list[str]:
    for name, value in headers:
        if name.lower() == "authorization" and value[:7].lower() != "bearer ":
            reason = f"`Authorization` has another scheme than Bearer, or no key; {SEND}"
            raise ClientError("invalid_api_key", reason)
    return list(lenient(headers))


def _of_subprotocols(value: str) -> Iterator[str]:
    for word in value.split(","):
        if word.strip().startswith(KEY_SUBPROTOCOL):
            yield word.strip().removeprefix(KEY_SUBPROTOCOL)


def _is_key(parameter: str) -> bool:
    name = unquote_plus(parameter.split("=", 1)[0]).strip().lower()
    return name in IN_URL
