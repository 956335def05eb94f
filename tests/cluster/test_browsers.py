"""What HAProxy tells browsers itself is what ingress replicas would."""

from pathlib import Path

import httpx2 as httpx

from serve_app.cluster.browsers import lines
from serve_app.cluster.front import Front
from serve_app.security.answer_headers import ALWAYS, ONLY_IF_TRUSTWORTHY
from tests.cluster.test_haproxy import application, haproxy, server

FRIEND, OTHER = "https://app.example", "http://localhost:3000"
FRONT = Front(origins=(FRIEND, OTHER))
ADDED = {name.lower(): value for name, value in ALWAYS.items() if name != ONLY_IF_TRUSTWORTHY}


def asked(url: str, origin: str = "") -> httpx.Response:
    return httpx.get(f"{url}/v1/models", headers={"origin": origin} if origin else {})


def test_its_own_errors_have_the_headers_once(tmp_path: Path) -> None:
    with haproxy(tmp_path, application(None), front=FRONT) as url:
        answers = [asked(url, origin) for origin in ("", FRIEND, "https://evil.example")]
    for answer in answers:
        assert answer.status_code == 503
        assert {name: answer.headers.get(name) for name in ADDED} == ADDED


def test_pages_of_the_list_may_read_its_errors(tmp_path: Path) -> None:
    with haproxy(tmp_path, application(None), front=FRONT) as url:
        for origin in (FRIEND, OTHER):
            answer = asked(url, origin)
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-expose-headers"] == "*"
            assert answer.headers["vary"] == "Origin"
        for origin in ("", "null", "https://app.example.evil", f"{FRIEND}, {OTHER}", "HTTPS://APP"):
            named = [it for it in asked(url, origin).headers if it.startswith("access-control")]
            assert named == []


def test_what_replicas_say_stays(tmp_path: Path) -> None:
    with server(200) as port, haproxy(tmp_path, application(port), front=FRONT) as url:
        answer = asked(url, FRIEND)
    assert answer.status_code == 200 and answer.headers["x-from"] == "replica"
    assert not set(ADDED) & set(answer.headers)


def test_without_a_list_no_page_may() -> None:
    assert not [line for line in lines(Front()) if "Access-Control" in line]
