"""Lines for HAProxy: who the client is, whether it may connect, and how often. Pure.

HAProxy's `src` is the client's address from the first lines on: of the connection, or what trusted
proxies say. Networks are compared in both forms of IPv4 (HAProxy does so itself).
"""

import json
from collections.abc import Iterator

from serve_app.cluster.front import Front

MAX_PROXIES = 5
"""Trusted proxies behind each other; what stands further left is not read."""

TABLES = """
backend voxray_addresses
    stick-table type ipv6 size 100k expire 1m store conn_cur,gpc0,gpc0_rate(1s)
backend voxray_peers
    stick-table type ipv6 size 100k expire 1m store conn_cur
"""
"""What is counted of each address; a new HAProxy begins anew. When a table is full, the address
that was seen least recently is forgotten."""

NETWORK = "src,ipmask(32,64)"
"""An address; of IPv6 the network that one customer gets."""

HEALTH = ("/v1/ready", "/v1/health", "/-/healthz")

NOT_ALLOWED = ("address_not_allowed", "this address is not served")
NO_CERTIFICATE = (
    "client_certificate_required",
    "connect with a client certificate that `tls.client_ca` has signed",
)
TOO_MANY = ("too_many_connections", "too many connections from this address; retry later")


def body(code: str, message: str) -> dict[str, object]:
    """As `ClientError.body`; all but the last are 403."""
    kind = "invalid_request_error" if code == TOO_MANY[0] else "permission_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def lines(front: Front) -> tuple[str, ...]:
    """For the section where clients connect, before anything is answered."""
    return (
        "acl voxray_loopback src 127.0.0.0/8 ::1",
        "acl voxray_upgrade hdr(upgrade) -i websocket",
        f"acl voxray_health path {' '.join(HEALTH)}",
        "acl voxray_proxy always_false",
        *(f"acl voxray_proxy src {network}" for network in front.trusted_proxies),
        *_peers(front),
        *_client(),
        *_lists(front),
        *_certificate(front),
        *_counted(front),
    )


def _peers(front: Front) -> Iterator[str]:
    """A bound on connections that never ask for anything, before TLS costs something."""
    exempt = "voxray_loopback || voxray_proxy"
    yield f"tcp-request connection track-sc2 {NETWORK} table voxray_peers unless {exempt}"
    most = 2 * front.connections_per_address
    yield f"tcp-request connection reject if {{ sc_conn_cur(2) gt {most} }}"


def _client() -> Iterator[str]:
    """From right to left, each trusted proxy says who came to it. The first address that is no
    trusted proxy is the client; what stands left of it the client may have made up."""
    yield "http-request set-var(txn.hop) int(0)"
    yield "http-request del-header x-forwarded- -m beg unless voxray_proxy"
    for hop in range(1, MAX_PROXIES + 1):
        said = f"req.hdr_ip(x-forwarded-for,-{hop})"
        follows = f"{{ var(txn.hop) -m int eq {hop - 1} }} {{ {said} -m found }}"
        yield f"http-request set-var(txn.hop) int({hop}) if voxray_proxy {follows}"
        yield f"http-request set-src {said} if {{ var(txn.hop) -m int eq {hop} }}"
    yield "http-request del-header forwarded"
    yield "http-request del-header x-real-ip"
    yield "http-request set-header x-forwarded-for %[src]"
    scheme = "http-request set-header x-forwarded-proto"
    yield f"{scheme} https if {{ ssl_fc }} !{{ req.hdr(x-forwarded-proto) -m found }}"
    yield f"{scheme} http unless {{ req.hdr(x-forwarded-proto) -m found }}"
    yield "http-request set-var(txn.voxray_dst) dst"
    yield "acl voxray_self src,strcmp(txn.voxray_dst) eq 0"


def _lists(front: Front) -> Iterator[str]:
    refuse = f"http-request {_answer(403, NOT_ALLOWED)}"
    for network in front.deny:
        yield f"acl voxray_denied src {network}"
    for network in front.allow:
        yield f"acl voxray_allowed src {network}"
    if front.deny:
        yield f"{refuse} if voxray_denied !voxray_loopback !voxray_self"
    if front.allow:
        yield f"{refuse} if !voxray_allowed !voxray_loopback !voxray_self"


def _certificate(front: Front) -> Iterator[str]:
    """Not already in the handshake, so that clients are told why, and load balancers can ask for
    the server's health. A certificate of somebody else breaks the handshake."""
    if front.client_ca:
        yield f"http-request {_answer(403, NO_CERTIFICATE)} if !{{ ssl_c_used }} !voxray_health"


def _counted(front: Front) -> Iterator[str]:
    refuse = f"http-request {_answer(429, TOO_MANY, 'hdr Retry-After 1')}"
    exempt = "voxray_loopback || voxray_self"
    yield f"http-request track-sc1 {NETWORK} table voxray_addresses unless {exempt}"
    yield f"{refuse} if {{ sc_conn_cur(1) gt {front.connections_per_address} }}"
    yield "http-request sc-inc-gpc0(1) if voxray_upgrade { sc_tracked(1) }"
    too_fast = f"{{ sc_gpc0_rate(1) gt {front.handshakes_per_address} }}"
    yield f"{refuse} if voxray_upgrade {too_fast}"


def _answer(status: int, error: tuple[str, str], header: str = "") -> str:
    content = f"status {status} content-type application/json {header}"
    return f"return {content} string '{json.dumps(body(*error))}'"
