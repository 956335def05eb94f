"""Whether a browser's page may use this server without a credential of its own. Pure.

A page of any origin can send requests to every server that its visitor reaches, also on loopback,
and a name of its owner can resolve to any address (DNS rebinding). So `Host` must be a name of this
server, and the page one of its own or of an allow-list. A program that is no browser sends neither
`Origin` nor `Sec-Fetch-Site`, and has the address; it is not affected.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from serve_app.errors import ClientError

PORTS = {"http": 80, "https": 443}
SECURE = ("https", "wss")

NOT_PUBLIC = (".localhost", ".internal", ".svc", ".svc.cluster.local")
"""Endings that no public DNS has, so that no stranger owns such a name."""


class WebOrigin(NamedTuple):
    """Where a page comes from."""

    scheme: str
    host: str
    port: int | None
    """None is the scheme's own."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port else "")


def web_origin(text: str) -> WebOrigin | None:
    """An `Origin` header. None for `null` and for what is no origin."""
    try:
        parts = urlsplit(text)
        host, port = parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        return None
    rest = parts.path or parts.query or parts.fragment
    if rest or not parts.scheme or not host or "@" in parts.netloc or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return WebOrigin(parts.scheme, name, None if port == PORTS.get(parts.scheme) else port)


def host_name(host: str) -> str:
    """The name or address in a `Host` header, without its port."""
    name, colon, port = host.lower().rpartition(":")
    name = name if colon and port.isdecimal() else host.lower()
    return name.removeprefix("[").removesuffix("]").removesuffix(".")


def is_encrypted(headers: Mapping[str, str]) -> bool:
    """Whether the client uses TLS, as the proxy that ends it says."""
    proto = headers.get("X-Forwarded-Proto") or ""
    return proto.split(",")[0].strip().lower() in SECURE


def own_origin(headers: Mapping[str, str]) -> WebOrigin | None:
    """That of this server's pages, as the client reaches it."""
    scheme = "https" if is_encrypted(headers) else "http"
    return web_origin(f"{scheme}://{headers.get('Host') or ''}")


class KnownOrigins:
    """Whose pages may use this server, and under which names it is known."""

    def __init__(
        self, origins: Iterable[str], hosts: Iterable[str], any_host: bool = False
    ) -> None:
        """`any_host`: this server may have any name; without keys it may not."""
        self._origins = {web_origin(it) for it in origins} - {None}
        self._hosts = {host_name(it) for it in hosts}
        self._any_host = any_host

    @property
    def origins(self) -> list[str]:
        """The list, as browsers write it."""
        return sorted(map(str, self._origins))

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `ClientError` for a request without a credential from a page that is not ours."""
        self.check_host(headers)
        if not self._is_ours(headers):
            origin = headers.get("Origin") or "another origin"
            raise ClientError(
                "origin_not_allowed",
                f"a page of {origin[:100]!r} may not use this server without a key: "
                "allowed are its own pages and those of browser.origins",
            )

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raises `ClientError` if `Host` is a name that somebody else may own."""
        name = host_name(headers.get("Host") or "")
        if not (self._any_host or name in self._hosts or _is_never_public(name)):
            raise ClientError(
                "host_not_allowed",
                f"this server is not known as {name[:100]!r}: use its address, or add the name to "
                "browser.hosts",
            )

    def allows(self, origin: str) -> bool:
        """Whether the page's origin is on the list."""
        return web_origin(origin) in self._origins

    def _is_ours(self, headers: Mapping[str, str]) -> bool:
        origin, fetched_from = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if origin and self.allows(origin):
            return True
        if fetched_from:  # no page can forge it
            return fetched_from in ("same-origin", "none") or _is_visit(headers)
        return not origin or _is_same(origin, headers)


def _is_same(origin: str, headers: Mapping[str, str]) -> bool:
    page = web_origin(origin)
    return page is not None and page == own_origin(headers)


def _is_visit(headers: Mapping[str, str]) -> bool:
    """A link that a person followed: the page that has it does not see the answer."""
    return (
        headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
        and not headers.get("Origin")
    )


def _is_never_public(name: str) -> bool:
    """Whether nobody can make the name resolve to where they like; "" is no browser's."""
    return "." not in name or name.endswith(NOT_PUBLIC) or is_address(name)


def is_address(name: str) -> bool:
    """Whether it is an IP address, which no DNS can change."""
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
