"""Tells browsers with every answer what they need, also with a refusal and an internal error."""

from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.identity.origins import host_name, is_address, is_encrypted
from serve_app.security.answer_headers import ALWAYS, ONLY_IF_TRUSTWORTHY

FILES = ("/web/", "/docs/assets/")
"""The same for everybody: browsers keep them, and ask each time whether they have changed."""


class SecurityHeaders:
    """ASGI middleware, around everything."""

    def __init__(self, app: ASGIApp, hsts_s: int) -> None:
        self._app = app
        self._hsts_s = hsts_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        added = self._headers(scope)

        async def answer(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answer)

    def _headers(self, scope: Scope) -> dict[str, str]:
        added, headers = dict(ALWAYS), Headers(scope=scope)
        if not _is_trustworthy(headers):
            del added[ONLY_IF_TRUSTWORTHY]
        if scope["path"].startswith(FILES):
            added["Cache-Control"] = "no-cache"
        if self._hsts_s and _binds_its_name(headers):
            added["Strict-Transport-Security"] = f"max-age={self._hsts_s}"
        return added


def _binds_its_name(headers: Headers) -> bool:
    """Whether the client uses TLS at its default port, so that what holds for all ports of the name
    breaks nobody else's; never for this machine or a mere address."""
    host = headers.get("host", "").lower()
    name = host_name(host)
    has_port = host.rpartition("]")[2].partition(":")[2] not in ("", "443")
    return is_encrypted(headers) and not has_port and not (_is_local(name) or is_address(name))


def _is_trustworthy(headers: Headers) -> bool:
    """As browsers see an origin (https://www.w3.org/TR/secure-contexts)."""
    name = host_name(headers.get("host", ""))
    is_loopback = is_address(name) and ip_address(name).is_loopback
    return is_encrypted(headers) or _is_local(name) or is_loopback


def _is_local(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")
