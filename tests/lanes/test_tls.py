"""Lanes under TLS, with certificates as Ray wants them."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.interfaces import Hypothesis, Speech, SpeechOptions
from serve_app.lanes import tls
from serve_app.lanes.wire import LaneConnection, LaneServer
from tests.fakes import FakeTranscriber

PEM = serialization.Encoding.PEM


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def certificate(
    of: str, key: ec.EllipticCurvePrivateKey, ca: str, signs: ec.EllipticCurvePrivateKey
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name(of))
        .issuer_name(name(ca))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=of == ca, path_length=None), critical=True)
    )
    return built.sign(signs, hashes.SHA256()).public_bytes(PEM)


def cluster(folder: Path) -> dict[str, str]:
    """The environment of a node: a CA, and a certificate that it has signed."""
    folder.mkdir()
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "ca.crt").write_bytes(certificate("ca", ca_key, "ca", ca_key))
    (folder / "node.crt").write_bytes(certificate("a node", key, "ca", ca_key))
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "node.key").write_bytes(secret)
    return {
        tls.USE_TLS: "1",
        tls.CERT: str(folder / "node.crt"),
        tls.KEY: str(folder / "node.key"),
        tls.CA: str(folder / "ca.crt"),
    }


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    environment = cluster(tmp_path / "ours")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return environment


def test_a_lane_under_tls_carries_what_others_do(ours: dict[str, str]) -> None:
    async def go() -> None:
        server = LaneServer(FakeTranscriber("hi"), Speech)
        address = await server.start("it", "127.0.0.1")
        connection = await LaneConnection.open(address, Hypothesis)
        assert connection._writer.get_extra_info("cipher")
        piece = Speech(1, 0, bytes(300_000), True, SpeechOptions())
        sending = asyncio.create_task(connection.exchange([piece], [], 1))
        while not (answers := await asyncio.wait_for(connection.receive(), 30)):
            continue
        assert answers[0].words[0].text == "hi"
        await sending
        connection.close()
        server.stop()

    asyncio.run(go())


@pytest.mark.parametrize("stranger", ["without TLS", "without a certificate", "of another CA"])
def test_nobody_else_gets_a_lane(
    ours: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    others = cluster(tmp_path / "others")
    contexts = {
        "without TLS": None,
        "without a certificate": ssl._create_unverified_context(),
        "of another CA": tls.client(others | {tls.CA: ours[tls.CA]}),
    }

    async def go() -> None:
        server = LaneServer(FakeTranscriber(), Speech)
        address = await server.start("it", "127.0.0.1")
        monkeypatch.setattr(tls, "client", lambda: contexts[stranger])
        with pytest.raises((OSError, TimeoutError)):
            async with asyncio.timeout(3):
                await LaneConnection.open(address, Hypothesis)
        server.stop()

    asyncio.run(go())


def test_an_ingress_gives_no_token_to_a_replica_of_another_ca(
    ours: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tls.server(cluster(tmp_path / "others"))

    async def go() -> None:
        monkeypatch.setattr(tls, "server", lambda: others)
        server = LaneServer(FakeTranscriber(), Speech)
        address = await server.start("it", "127.0.0.1")
        with pytest.raises(ssl.SSLError):
            await LaneConnection.open(address, Hypothesis)
        server.stop()

    asyncio.run(go())


def test_without_rays_tls_there_is_none() -> None:
    assert tls.server({}) is None and tls.client({tls.USE_TLS: "0"}) is None


def test_half_a_configuration_is_refused_with_what_is_missing(ours: dict[str, str]) -> None:
    with pytest.raises(tls.TlsIncomplete, match=tls.KEY):
        tls.server({**ours, tls.KEY: ""})
    with pytest.raises(tls.TlsIncomplete):
        tls.server({**ours, tls.KEY: "/no/such/file"})
