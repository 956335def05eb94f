"""The configuration of what browsers may do."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from serve_app.config.model import ConfigModel
from serve_app.identity.origins import host_name, web_origin

LINK = re.compile(r"https?://[^\s<>\"'`\\]{1,2000}")
PLAIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")


def _origin(text: str) -> str:
    found = web_origin(text.strip().rstrip("/"))
    if found is None or not PLAIN.fullmatch(str(found)):
        raise ValueError(
            f"{text[:100]!r} is not an origin: write scheme, host and port, "
            "as https://app.example or http://localhost:3000"
        )
    return str(found)


def _host(text: str) -> str:
    name = host_name(text.strip())
    if not name or not set(name).isdisjoint("*/@ "):
        raise ValueError(f"{text[:100]!r} is not a host name: write it as voice.example")
    return name


def _link(text: str) -> str:
    if not LINK.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is not a link: write it as https://grafana.example")
    return text


class BrowserConfig(ConfigModel):
    """Whose pages may use this server, and under which names it is known."""

    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        (),
        max_length=1000,
        description="Origins of pages, as `https://app.example`, that may use this server from a "
        "browser: without a key where none is required, and REST with one (CORS). The server's own "
        "pages need not be here.",
    )
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = Field(
        (),
        max_length=1000,
        description="Names of this server that are accepted in `Host` where no key is shown. "
        "Always accepted are IP addresses, localhost, the machine's own name, names without a dot, "
        "and names that no public DNS has: `*.localhost`, `*.internal`, `*.svc`. If this list is "
        "not empty, it holds for servers that require keys, too.",
    )
    links: dict[
        Annotated[str, Field(min_length=1, max_length=60)], Annotated[str, AfterValidator(_link)]
    ] = Field(
        {},
        max_length=20,
        description="What the page's view of the server links to, by its name, as "
        "`Grafana: https://grafana.example` or `Ray: http://127.0.0.1:8265`.",
    )
    sign_in_s: int = Field(
        43_200,
        ge=60,
        le=2_592_000,
        description="Seconds for which a person is signed in at the page. It ends sooner with the "
        "key, and with the server's signing keys.",
    )
    hsts_s: int = Field(
        31_536_000,
        ge=0,
        le=63_072_000,
        description="Seconds for which browsers use only TLS for this name (HSTS). Sent over TLS "
        "at the default port, because it binds every port of the name; 0: never.",
    )
