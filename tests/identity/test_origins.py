"""Which pages may use the server without a key, and under which names."""

import pytest
from starlette.datastructures import Headers

from serve_app.errors import ClientError
from serve_app.identity.origins import KnownOrigins, host_name, web_origin

KNOWN = KnownOrigins(["https://app.example", "http://localhost:3000"], ["voice.example", "box"])


def refused(**headers: str) -> str:
    """The code of the refusal, or ""."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        KNOWN.check(Headers(named))
    except ClientError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.0.0.1",
        "[::1]:8000",
        "[fd00::7]",
        "10.1.2.3:8000",
        "localhost:8000",
        "LOCALHOST",
        "localhost.",
        "app.localhost:8000",
        "voxray:8000",
        "box",
        "voice.example",
        "Voice.Example.:443",
        "voxray.speech.svc:8000",
        "voxray.speech.svc.cluster.local:8000",
        "host.docker.internal:8000",
        "",
    ],
)
def test_names_that_no_stranger_owns(host: str) -> None:
    assert refused(host=host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "voice.example.evil.example",
        "notvoice.example",
        "evil.example:voice.example",
        "evil.internal.example",
        "box.evil.example",
        "300.1.2.3.evil",
        "7f.0.0.1.nip.io",
        "evil.local",
    ],
)
def test_names_that_a_stranger_may_own(host: str) -> None:
    assert refused(host=host) == "host_not_allowed"
    assert refused(host=host, origin=f"http://{host}") == "host_not_allowed"


def test_a_server_that_requires_keys_may_have_any_name() -> None:
    KnownOrigins([], [], any_host=True).check(Headers({"host": "evil.example"}))


@pytest.mark.parametrize(
    ("host", "proto", "origin"),
    [
        ("localhost:8000", "", "http://localhost:8000"),
        ("127.0.0.1:8000", "", "http://127.0.0.1:8000"),
        ("[::1]:8000", "", "http://[::1]:8000"),
        ("voice.example", "https", "https://voice.example"),
        ("voice.example:443", "https", "https://voice.example"),
        ("voice.example", "https, http", "https://voice.example"),
        ("voice.example:8443", "wss", "https://voice.example:8443"),
        ("voice.example:80", "", "http://voice.example"),
        ("localhost:8000", "", "http://localhost:3000"),
        ("localhost:8000", "", "https://app.example"),
        ("localhost:8000", "", "https://app.example:443"),
    ],
)
def test_pages_of_ours_and_of_the_list(host: str, proto: str, origin: str) -> None:
    assert refused(host=host, x_forwarded_proto=proto, origin=origin) == ""


@pytest.mark.parametrize(
    ("host", "proto", "origin"),
    [
        ("localhost:8000", "", "http://evil.example"),
        ("localhost:8000", "", "http://localhost:8001"),
        ("localhost:8000", "", "http://localhost"),
        ("localhost:8000", "", "http://127.0.0.1:8000"),
        ("localhost:8000", "", "null"),
        ("localhost:8000", "", "file://"),
        ("localhost:8000", "", "http://localhost:8000@evil.example"),
        ("localhost:8000", "", "http://localhost:8000.evil.example"),
        ("localhost:8000", "", "http://localhost:8000/evil"),
        ("localhost:8000", "", "http://user@localhost:8000"),
        ("localhost:8000", "", "http://app.example"),
        ("localhost:8000", "", "https://app.example.evil.example"),
        ("localhost:8000", "", "https://evil.example https://app.example"),
        ("localhost:8000", "", "http://localhost:99999999"),
        ("voice.example", "https", "http://voice.example"),
        ("voice.example", "", "https://voice.example"),
        ("", "", "http://evil.example"),
        ("", "", "null"),
    ],
)
def test_pages_of_strangers(host: str, proto: str, origin: str) -> None:
    sent = {"host": host, "x_forwarded_proto": proto, "origin": origin}
    assert refused(**sent) == "origin_not_allowed"
    assert refused(**sent, sec_fetch_site="cross-site") == "origin_not_allowed"


@pytest.mark.parametrize(
    ("site", "mode", "dest", "code"),
    [
        ("same-origin", "cors", "empty", ""),
        ("none", "navigate", "document", ""),
        ("cross-site", "navigate", "document", ""),  # a link; the other page does not see it
        ("cross-site", "navigate", "iframe", "origin_not_allowed"),
        ("cross-site", "no-cors", "image", "origin_not_allowed"),
        ("cross-site", "no-cors", "audio", "origin_not_allowed"),
        ("cross-site", "websocket", "empty", "origin_not_allowed"),
        ("same-site", "no-cors", "script", "origin_not_allowed"),  # another port of this host
        ("same-site", "navigate", "document", ""),
        ("anything", "cors", "empty", "origin_not_allowed"),
    ],
)
def test_what_the_browser_says_without_an_origin(
    site: str, mode: str, dest: str, code: str
) -> None:
    sent = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    assert refused(host="localhost:8000", **sent) == code


def test_a_form_that_a_stranger_submits_is_no_visit() -> None:
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    for origin in ("null", "http://evil.example"):
        sent = {**visit, "sec_fetch_dest": "document", "origin": origin}
        assert refused(host="localhost:8000", **sent) == "origin_not_allowed"


def test_a_proxy_that_changes_the_host_does_not_make_our_page_a_stranger() -> None:
    sent = {"host": "10.0.0.7:8000", "origin": "https://voice.example"}
    assert refused(**sent, sec_fetch_site="same-origin") == ""


def test_origins_and_hosts_are_normalised() -> None:
    assert str(web_origin("HTTPS://App.Example:443")) == "https://app.example"
    assert str(web_origin("http://[::1]:8000")) == "http://[::1]:8000"
    assert str(web_origin("chrome-extension://abc")) == "chrome-extension://abc"
    assert web_origin("https://app.example?") is not None
    for wrong in ("", "null", "app.example", "https://", "https://a/b", "https://a#b", "http://["):
        assert web_origin(wrong) is None
    assert host_name("[::1]:8000") == "::1" and host_name("A.B.:80") == "a.b"
