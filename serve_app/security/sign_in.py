"""A browser's sign-in: what a cookie says of who exchanged a key for it. Pure.

A JSON Web Token (HS256) with the id of the key, never the key, so that every ingress replica can
check it without storing it. It is not valid longer than the key, and only for pages of this server:
cookies ride on every request to a host, whichever page makes it and whichever port it goes to.
"""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from serve_app.errors import ClientError
from serve_app.identity.origins import is_encrypted, own_origin, web_origin
from serve_app.identity.principal import Principal, Scope
from serve_app.security.signing import InvalidToken, SigningKeys

COOKIE = "voxray_sign_in"
PURPOSE = "voxray/sign-in"
MAX_CHARS = 4_000
SAFE = ("GET", "HEAD", "OPTIONS")


def signed(keys: SigningKeys, who: Principal, expires_at: int) -> str:
    """The cookie's value. `expires_at` is in seconds since 1970."""
    claims = {"tenant": who.tenant, "key": who.key, "scopes": sorted(who.scopes)}
    return keys.sign(PURPOSE, expires_at, claims)


def opened(keys: SigningKeys, value: str, now: float) -> Principal:
    """Who signed in. Raises `ClientError` for a cookie that is forged or over."""
    try:
        claims = keys.verified(PURPOSE, value[:MAX_CHARS], now)
        scopes = frozenset(map(Scope, claims["scopes"]))
        return Principal(claims["tenant"], claims["key"], scopes, float(claims["exp"]))
    except (InvalidToken, KeyError, ValueError, TypeError) as error:
        raise ended() from error


def ended() -> ClientError:
    return ClientError("invalid_api_key", "the sign-in is over: sign in again with a key")


def shown(headers: Mapping[str, str]) -> str:
    """The cookie of a request; "" if it has none."""
    try:
        found = SimpleCookie(headers.get("cookie") or "").get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def cookie(value: str, headers: Mapping[str, str], lasts_s: int) -> str:
    """A `Set-Cookie` header. `lasts_s`: 0 deletes it."""
    secure = "; Secure" if is_encrypted(headers) else ""
    return f"{COOKIE}={value}; Max-Age={lasts_s}; Path=/; HttpOnly; SameSite=Strict{secure}"


def check_page(headers: Mapping[str, str], method: str) -> None:
    """Raises `ClientError` unless a page of exactly this server's origin, or nobody's, asks.

    Browsers send `Origin` with every handshake and everything that changes something, and
    `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/) with what only reads.
    """
    origin = headers.get("origin")
    if origin is None and method in SAFE and not is_handshake(headers):
        allowed = (headers.get("sec-fetch-site") or "none") in ("same-origin", "none")
    else:
        page = web_origin(origin or "")
        allowed = page is not None and page == own_origin(headers)
    if not allowed:
        reason = "a sign-in is only for the server's own page: another page needs a key"
        raise ClientError("origin_not_allowed", reason)


def is_handshake(headers: Mapping[str, str]) -> bool:
    return (headers.get("upgrade") or "").lower() == "websocket"
