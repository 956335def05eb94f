"""A whole server on the network: TLS, what listens where (S5), and who may read its files."""

import json
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc  # type: ignore[import-untyped]
import httpx2 as httpx
import psutil
import pytest
from cryptography import x509
from websockets.sync.client import connect

from loadtest.speech import wav
from serve_app.cluster.certificate import CHECK_S
from serve_app.security.certificates import TlsFiles
from tests import browser
from tests.api.sockets.test_live_socket import PATH, chunks, words
from tests.api.sockets.test_tcp_tls import Client, of
from tests.authority import Authority
from tests.ports import free_port
from tests.security.test_browsers import transcribed
from tests.server import Server, running, voxray
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

TCP_PORT = free_port()
TOKEN = Path("~/.ray/auth_token").expanduser()
LATER_S = 4 * CHECK_S + 10


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> TlsFiles:
    return authority.files("server")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was used by a version that let everybody read it."""
    folder = tmp_path_factory.mktemp("tls")
    objects = folder / "data" / "objects"
    objects.mkdir(parents=True)
    (folder / "data" / "voxray.db").touch()
    for path in (folder / "data", objects, folder / "data" / "voxray.db"):
        path.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, files: TlsFiles) -> Iterator[Server]:
    args = {"profile": "sim", "tls": files._asdict(), "tcp": {"port": TCP_PORT}}
    if TOKEN.exists():
        TOKEN.chmod(0o644)
    with running(folder, args, options=("--host", "0.0.0.0", "--insecure")) as started:
        yield started


@pytest.fixture
def url(server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> str:
    """For clients that trust the authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    return f"https://{server.address}"


def curl(*arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--include", "--max-time", "10", *arguments]
    return subprocess.run(command, capture_output=True, check=False).stdout.decode("latin-1")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(url: str, authority: Authority) -> None:
    answer = curl("--cacert", str(authority.ca), f"{url}/v1/health")
    assert answer.startswith("HTTP/1.1 200")
    key = ("--header", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    more = [word for header in headers for word in ("--header", header)]
    upgrade = curl("--cacert", str(authority.ca), "--max-time", "2", *more, *key, url + PATH)
    assert upgrade.startswith("HTTP/1.1 101")
    assert curl("--cacert", "/etc/hostname", f"{url}/v1/health") == ""


@pytest.mark.filterwarnings("ignore:connect")  # that client uses websockets in an older way
def test_openais_client(url: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    speech = client.audio.speech.create(model="sim", voice="alloy", input="Hello.")
    assert len(speech.read()) > 100
    with client.realtime.connect(model="voxray") as connection:
        assert connection.recv().type == "session.created"


def test_our_own_client(url: str) -> None:
    assert voxray("status", "--server", url).returncode == 0


@pytest.mark.browser
def test_a_page_of_its_own(url: str, files: TlsFiles, speech: bytes) -> None:
    asked = {"session": {"type": "transcription"}}
    secret = httpx.post(f"{url}/v1/realtime/client_secrets", json=asked).json()["value"]
    with browser.running(browser.trusting(files.certificate)) as chromium, chromium.tab() as tab:
        tab.open(f"{url}/docs")
        for key in ("", secret):
            assert words(transcribed(tab, speech, key))
        assert tab.problems == []


def test_when_the_certificate_expires_is_a_metric(url: str, files: TlsFiles) -> None:
    certificate = x509.load_pem_x509_certificate(Path(files.certificate).read_bytes())
    metrics = httpx.get(f"{url}/v1/metrics").json()["metrics"]
    (series,) = metrics["voxray_certificate_expires_timestamp_seconds"]["series"]
    assert series["value"] == certificate.not_valid_after_utc.timestamp()


def test_a_new_certificate_cuts_nothing(
    url: str, files: TlsFiles, authority: Authority, speech: bytes
) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    renewed = authority.files("renewed")
    with (
        connect(url.replace("https", "wss") + PATH, ssl=trusting) as socket,
        Client(TCP_PORT, authority.ca) as wire,
    ):
        assert wire.ping()
        for old, new in zip(files[:2], renewed[:2], strict=True):
            Path(old).write_bytes(Path(new).read_bytes())

        def shown() -> set[str]:
            with Client(TCP_PORT, authority.ca) as tcp, Client(port(url), authority.ca) as http:
                return {tcp.shown, http.shown}

        wait_for(lambda: shown() == {of(renewed)}, LATER_S, every_s=0.2)
        assert wire.ping()
        socket.send(json.dumps({"type": "start"}))
        for chunk in chunks(speech):
            socket.send(chunk)
        socket.send(json.dumps({"type": "stop"}))
        events = [json.loads(frame) for frame in socket]
    assert words(events)


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


class Listening(NamedTuple):
    address: str
    port: int
    process: str


def listening(server: Server) -> list[Listening]:
    """Every socket of the server's processes that listens, and the name of its process."""
    return [
        Listening(it.laddr.ip.removeprefix("::ffff:"), it.laddr.port, name(process))
        for process in server.descendants()
        for it in process.net_connections("tcp")
        if it.status == psutil.CONN_LISTEN
    ]


def name(process: psutil.Process) -> str:
    title = process.cmdline()[0].strip()
    return title.rpartition(":")[2] if title.startswith("ray::") else process.name()


def test_only_the_configured_address_listens_to_other_machines(server: Server) -> None:
    found = listening(server)
    assert [it for it in found if it.address != "127.0.0.1"] == [
        ("0.0.0.0", server.port, "haproxy")
    ]
    assert len(found) > 20


WITH_TOKEN = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.serve.ASGIService/HandleRequest",
)
"""A method of each of Ray's services."""

OPEN = {
    "ProxyActor: 200": "Serve's proxy: the page, which is for everybody; the rest asks for keys",
    "Ingress: 200": "an ingress replica: the same",
    "DashboardAgent: 200": "Ray's metrics",
    "haproxy: 503": "its metrics",
}
"""What another user of this machine reaches without Ray's token, by its answer at `/`."""

CLOSED = "the connection is closed"


def answer(port: int) -> str:
    """To somebody without Ray's token: `token` where that is asked for."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        codes = [code(channel, method) for method in WITH_TOKEN]
    if grpc.StatusCode.UNAUTHENTICATED in codes:
        return "token"
    try:
        status = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code
    except httpx.HTTPError:
        return CLOSED
    return "token" if status == 401 else str(status)


def code(channel: grpc.Channel, method: str) -> grpc.StatusCode:
    call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    try:
        call(b"", timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_without_rays_token_nothing_of_rays_answers(server: Server) -> None:
    """The exceptions are known by name. Lanes, and HTTP at a port with TLS, are closed."""
    lanes = {"Vad", "Transcriber", "Chat", "Speaker", "Diarizer"}
    tls = {server.port, TCP_PORT}
    inside = [it for it in listening(server) if it.port not in tls]
    answers = [f"{it.process}: {answer(it.port)}" for it in inside]
    exceptions = {it for it in answers if not it.endswith(": token")}
    assert exceptions == OPEN.keys() | {f"{it}: {CLOSED}" for it in lanes}
    assert len(answers) - len([it for it in answers if it in exceptions]) > 20


def modes(folder: Path) -> dict[str, int]:
    return {str(it): stat.S_IMODE(it.stat().st_mode) for it in (folder, *folder.rglob("*"))}


def test_only_the_owner_may_read(server: Server, folder: Path, url: str) -> None:
    with httpx.Client(base_url=url, verify=ssl.create_default_context()) as client:
        job = client.post("/v1/jobs", files={"file": ("a.wav", wav(bytes(32_000)))}).json()["id"]
        wait_for(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "completed", 60)
    found = modes(folder / "data") | {str(TOKEN): stat.S_IMODE(TOKEN.stat().st_mode)}
    (haproxy,) = Path("/tmp").glob(f"voxray-haproxy-*-{server.process.pid}")
    of_haproxy = modes(haproxy)
    assert any(it.endswith("admin.sock") for it in of_haproxy)
    found |= {it: mode for it, mode in of_haproxy.items() if not it.endswith("metrics.sock")}
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}
    assert len([it for it in found if "/objects/" in it]) >= 2
