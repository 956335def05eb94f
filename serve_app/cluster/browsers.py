"""Lines for HAProxy: what browsers need on its own answers, too, as on those of replicas. Pure."""

from collections.abc import Iterator

from serve_app.cluster.front import Front
from serve_app.security.answer_headers import ALWAYS, ONLY_IF_TRUSTWORTHY

ITS_OWN = "{ status ge 400 }"
"""HAProxy answers only with errors."""

PAGE = "%[var(txn.voxray_page)]"


def lines(front: Front) -> Iterator[str]:
    """For the section where clients connect, before anything is answered."""
    for origin in front.origins:
        yield f"acl voxray_page req.fhdr(origin) -m str '{origin}'"
    if front.origins:
        yield "http-request set-var(txn.voxray_page) req.fhdr(origin) if voxray_page"
    for name, value in ALWAYS.items():
        if name != ONLY_IF_TRUSTWORTHY:
            yield f"{_added(name, value)} if {ITS_OWN} !{{ res.hdr({name}) -m found }}"
    allow, seen = "Access-Control-Allow-Origin", "{ var(txn.voxray_page) -m found }"
    if front.origins:
        mine = f"if {ITS_OWN} {seen} !{{ res.hdr({allow}) -m found }}"
        yield f"{_added('Access-Control-Expose-Headers', '*')} {mine}"
        yield f"{_added('Vary', 'Origin')} {mine}"
        yield f"{_added(allow, PAGE)} {mine}"


def _added(name: str, value: str) -> str:
    return f'http-after-response add-header {name} "{value}"'
